//! `a{sv}` arguments: D-Bus values to JSON, and by serde to what they mean.

use super::Error;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::collections::HashMap;
use zbus::{OwnedVariant, Variant, message::Header};

/// An `a{sv}` as it comes from the bus.
pub type Dictionary = HashMap<String, OwnedVariant>;

/// Refuses a call whose arguments are larger than any that mean something.
pub fn check_size(header: &Header<'_>, max: u32) -> Result<(), Error> {
    match header.primary().body_len() {
        len if len > max => Err(Error::InvalidArgument(format!("the arguments take {len} bytes; {max} are the limit"))),
        _ => Ok(()),
    }
}

/// The dictionary as a JSON object. An empty string stands for `null`, which D-Bus lacks: the field's default.
fn to_patch(dictionary: &Dictionary) -> Result<Map<String, Value>, Error> {
    let field = |(key, value): (&String, &OwnedVariant)| match to_json(value) {
        Some(Value::String(text)) if text.is_empty() => Ok((key.clone(), Value::Null)),
        Some(value) => Ok((key.clone(), value)),
        None => {
            let signature = value.value_signature();
            Err(Error::InvalidArgument(format!("{key}: a value of D-Bus type '{signature}' has no meaning here")))
        }
    };
    dictionary.iter().map(field).collect()
}

/// The dictionary as what it describes. Unknown keys and wrong types are errors that name the key.
pub fn parse<T: DeserializeOwned>(dictionary: &Dictionary) -> Result<T, Error> {
    let mut fields = to_patch(dictionary)?;
    fields.retain(|_, value| !value.is_null());
    from_json(Value::Object(fields))
}

/// As [`parse`], from JSON.
pub fn from_json<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner().to_string();
        // An unknown key's text names it already.
        let text = if path == "." || inner.contains(&format!("`{path}`")) { inner } else { format!("{path}: {inner}") };
        Error::InvalidArgument(text)
    })
}

/// What an update changes of a resource as it is (`draft`), its keys and types checked; the loop checks what they mean.
/// Without a draft the resource is gone, which the loop says.
pub fn patch_of<T: Serialize + DeserializeOwned>(
    changes: &Dictionary,
    draft: Option<T>,
) -> Result<Map<String, Value>, Error> {
    let patch = to_patch(changes)?;
    check_patch(draft, &patch)?;
    Ok(patch)
}

/// Refuses a patch whose keys or types do not fit the resource, with the key's name.
fn check_patch<T: Serialize + DeserializeOwned>(draft: Option<T>, patch: &Map<String, Value>) -> Result<(), Error> {
    let Some(Value::Object(mut fields)) = draft.and_then(|draft| serde_json::to_value(draft).ok()) else {
        return Ok(());
    };
    for (key, value) in patch {
        if value.is_null() {
            check_key::<T>(key)?;
            fields.remove(key);
        } else {
            fields.insert(key.clone(), value.clone());
        }
    }
    from_json::<T>(Value::Object(fields)).map(drop)
}

/// Refuses a key that the type does not have: unset fields leave no trace by which serde would know.
fn check_key<T: DeserializeOwned>(key: &str) -> Result<(), Error> {
    let alone = Map::from_iter([(key.to_owned(), Value::Null)]);
    match serde_json::from_value::<T>(Value::Object(alone)) {
        Err(error) if error.to_string().starts_with("unknown field") => Err(Error::InvalidArgument(error.to_string())),
        _ => Ok(()),
    }
}

/// A D-Bus value as JSON; structures become arrays. `None` where JSON has no such thing.
pub fn to_json(value: &Variant<'_>) -> Option<Value> {
    Some(match value {
        Variant::U8(n) => (*n).into(),
        Variant::I16(n) => (*n).into(),
        Variant::U16(n) => (*n).into(),
        Variant::I32(n) => (*n).into(),
        Variant::U32(n) => (*n).into(),
        Variant::I64(n) => (*n).into(),
        Variant::U64(n) => (*n).into(),
        Variant::Bool(flag) => (*flag).into(),
        Variant::Str(text) => text.as_str().into(),
        Variant::ObjectPath(path) => path.as_str().into(),
        Variant::Variant(inner) => to_json(inner)?,
        Variant::Array(items) => Value::Array(items.inner().iter().map(to_json).collect::<Option<_>>()?),
        Variant::Structure(fields) => Value::Array(fields.fields().iter().map(to_json).collect::<Option<_>>()?),
        Variant::Dict(entries) => {
            let entry = |(key, value): (&Variant<'_>, &Variant<'_>)| match key {
                Variant::Str(key) => Some((key.as_str().to_owned(), to_json(value)?)),
                Variant::ObjectPath(key) => Some((key.as_str().to_owned(), to_json(value)?)),
                _ => None,
            };
            Value::Object(entries.iter().map(entry).collect::<Option<_>>()?)
        }
        Variant::F64(_) | Variant::Signature(_) | Variant::Fd(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::{AddressGroupDraft, NetworkDraft, PortDraft, RuleDrafts, SecurityGroupDraft, SubnetDraft};
    use proptest::prelude::*;

    fn dictionary<const N: usize>(entries: [(&str, Variant<'static>); N]) -> Dictionary {
        let owned = |value: Variant<'static>| OwnedVariant::try_from(value).expect("no file descriptors");
        entries.into_iter().map(|(key, value)| (key.to_owned(), owned(value))).collect()
    }

    fn refusal<T: DeserializeOwned + std::fmt::Debug>(dictionary: &Dictionary) -> String {
        match parse::<T>(dictionary) {
            Err(Error::InvalidArgument(text)) => text,
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn dictionaries_become_drafts() {
        let draft: NetworkDraft = parse(&dictionary([
            ("name", "blue".into()),
            ("physical_network", "lan".into()),
            ("vlan", Variant::U16(10)),
            ("mtu", "".into()),
        ]))
        .expect("valid");
        assert_eq!((draft.vlan.map(|v| v.get()), draft.mtu), (Some(10), None));

        let routes = vec![("10.9.0.0/16", "10.0.0.9")];
        let draft: SubnetDraft = parse(&dictionary([
            ("network", "blue".into()),
            ("cidr", "10.0.0.0/24".into()),
            ("pools", vec!["10.0.0.10-10.0.0.20"].into()),
            ("host_routes", routes.into()),
            ("lease_seconds", Variant::I64(120)),
        ]))
        .expect("valid");
        assert_eq!(draft.host_routes.len(), 1);

        let draft: PortDraft =
            parse(&dictionary([("network", "blue".into()), ("trunk_vlans", vec![10u16, 20].into())])).expect("valid");
        assert_eq!(draft.trunk_vlans.len(), 2);
    }

    #[test]
    fn refusals_name_the_key() {
        let bad = refusal::<NetworkDraft>(&dictionary([("name", "blue".into()), ("colour", "red".into())]));
        assert!(bad.contains("unknown field `colour`") && bad.contains("`mtu`"), "{bad}");
        let bad = refusal::<NetworkDraft>(&dictionary([("name", "blue".into()), ("mtu", "wide".into())]));
        assert!(bad.starts_with("mtu: "), "{bad}");
        let bad = refusal::<NetworkDraft>(&dictionary([("name", "blue".into()), ("vlan", Variant::U32(5000))]));
        assert_eq!(bad, "vlan: VLAN 5000 is out of range; VLAN IDs are 1 to 4094");
        let bad = refusal::<NetworkDraft>(&dictionary([("name", "blue".into()), ("mtu", Variant::F64(1.5))]));
        assert!(bad.starts_with("mtu: ") && bad.contains("'d'"), "{bad}");
        let bad = refusal::<NetworkDraft>(&dictionary([]));
        assert_eq!(bad, "missing field `name`");
    }

    proptest! {
        #[test]
        fn no_dictionary_panics(key in "[a-z_]{0,12}", text in ".{0,20}", number: i64, depth in 0usize..6) {
            let mut value = if number % 2 == 0 { Variant::from(text) } else { Variant::I64(number) };
            for _ in 0..depth {
                value = Variant::Variant(Box::new(value));
            }
            let dictionary = dictionary([(key.as_str(), value)]);
            let _ = parse::<NetworkDraft>(&dictionary);
            let _ = parse::<SubnetDraft>(&dictionary);
            let _ = parse::<PortDraft>(&dictionary);
            let _ = parse::<SecurityGroupDraft>(&dictionary);
            let _ = parse::<AddressGroupDraft>(&dictionary);
            let _ = parse::<RuleDrafts>(&dictionary);
        }
    }
}
