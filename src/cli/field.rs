//! Fields of resources as typed on the command line.

use super::CliError;
use crate::net::{MacAddr, VlanId};
use std::collections::{BTreeSet, HashMap};
use zbus::Variant;

/// What `Create…` and `Update` take.
pub type Fields = HashMap<&'static str, Variant<'static>>;

/// How a field's text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Text,
    Number,
    /// yes or no.
    Flag,
    /// Separated by commas.
    Texts,
    /// VLAN IDs and ranges of them, `10,20-29`.
    Vlans,
    /// Separated by semicolons: the values have commas in them.
    Lines,
    /// `DESTINATION=NEXTHOP`, separated by commas.
    Routes,
    /// `IP[/LEN][,MAC]`, separated by commas too.
    Pairs,
    /// `500k`, `100M`, `1G`, in thousands.
    Kilobits,
    /// `90`, `90s`, `30m`, `1h`, `2d`.
    Seconds,
    /// A domain's UUID, or its name in libvirt.
    Domain,
}

/// A field's names here (the first is shown), and on D-Bus.
#[derive(Debug)]
pub struct Key {
    pub names: &'static [&'static str],
    pub field: &'static str,
    pub form: Form,
}

/// Reads `KEY=VALUE` arguments; `KEY=` takes the field back to its default.
pub fn parse(keys: &[Key], assignments: &[String]) -> Result<Fields, CliError> {
    let mut fields = Fields::new();
    for assignment in assignments {
        let (name, text) = assignment
            .split_once('=')
            .ok_or_else(|| CliError::Usage(format!("'{assignment}' is not KEY=VALUE, mtu=1450 for example")))?;
        let key = keys.iter().find(|key| key.names.contains(&name)).ok_or_else(|| {
            let known: Vec<_> = keys.iter().filter_map(|key| key.names.first().copied()).collect();
            CliError::Usage(format!("there is no field '{name}'; the fields are {}", known.join(", ")))
        })?;
        let value = if text.is_empty() { Variant::from("") } else { value(key.form, text).map_err(prefixed(name))? };
        if fields.insert(key.field, value).is_some() {
            return Err(CliError::Usage(format!("'{name}' is given twice")));
        }
    }
    Ok(fields)
}

fn prefixed(name: &str) -> impl FnOnce(CliError) -> CliError {
    move |error| match error {
        CliError::Usage(text) => CliError::Usage(format!("{name}: {text}")),
        other => other,
    }
}

fn value(form: Form, text: &str) -> Result<Variant<'static>, CliError> {
    let number = |text: &str| {
        text.parse::<u32>().map_err(|_| CliError::Usage(format!("'{text}' is not a number from 0 to 4294967295")))
    };
    let items = || text.split(',').map(str::trim);
    Ok(match form {
        Form::Text => text.to_owned().into(),
        Form::Number => number(text)?.into(),
        Form::Flag => match text {
            "yes" | "true" | "on" | "1" => true.into(),
            "no" | "false" | "off" | "0" => false.into(),
            _ => return Err(CliError::Usage(format!("'{text}' is neither yes nor no"))),
        },
        Form::Texts => items().map(str::to_owned).collect::<Vec<_>>().into(),
        Form::Lines => text.split(';').map(|item| item.trim().to_owned()).collect::<Vec<_>>().into(),
        Form::Vlans => vlans(text)?.into(),
        Form::Routes => items().map(route).collect::<Result<Vec<_>, _>>()?.into(),
        Form::Pairs => pairs(text).into(),
        Form::Kilobits => kilobits(text).map_err(CliError::Usage)?.into(),
        Form::Seconds => seconds(text).map_err(CliError::Usage)?.into(),
        Form::Domain => super::domain::uuid_of(text)?.to_string().into(),
    })
}

/// VLAN IDs of `10,20-29`.
pub fn vlans(text: &str) -> Result<Vec<u16>, CliError> {
    let mut all = BTreeSet::new();
    for item in text.split(',') {
        all.extend(VlanId::parse_range(item).map_err(|error| CliError::Usage(error.to_string()))?.map(VlanId::get));
    }
    Ok(all.into_iter().collect())
}

fn route(text: &str) -> Result<(String, String), CliError> {
    let (destination, next_hop) = text
        .split_once('=')
        .ok_or_else(|| CliError::Usage(format!("'{text}' is not DESTINATION=NEXTHOP, 10.9.0.0/16=10.0.0.9 say")))?;
    Ok((destination.to_owned(), next_hop.to_owned()))
}

/// Routes of repeated options.
pub fn routes(texts: &[String]) -> Result<Variant<'static>, CliError> {
    Ok(texts.iter().map(|text| route(text)).collect::<Result<Vec<_>, _>>()?.into())
}

/// A MAC address belongs to the address before it.
fn pairs(text: &str) -> Vec<String> {
    let mut pairs: Vec<String> = Vec::new();
    for item in text.split(',').map(str::trim) {
        match pairs.last_mut() {
            Some(pair) if item.parse::<MacAddr>().is_ok() => *pair += &format!(",{item}"),
            _ => pairs.push(item.to_owned()),
        }
    }
    pairs
}

/// Bits, perhaps per second, in thousands: a number with k, M or G; without, bits.
pub fn kilobits(text: &str) -> Result<u32, String> {
    let bad = || format!("'{text}' is no number of bits; write 500k, 100M or 1G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let kilobits = match &text[digits.len()..] {
        "" => Some(number.div_ceil(1000)),
        "k" | "K" => Some(number),
        "m" | "M" => number.checked_mul(1000),
        "g" | "G" => number.checked_mul(1_000_000),
        _ => return Err(bad()),
    };
    kilobits.and_then(|number| u32::try_from(number).ok()).ok_or_else(bad)
}

/// A time span in seconds: a number with s, m, h or d; without, seconds.
pub fn seconds(text: &str) -> Result<u32, String> {
    let bad = || format!("'{text}' is not a time span; write 90s, 30m, 1h, 2d or infinite");
    if text == "infinite" {
        return Ok(u32::MAX);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u32 = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(bad()),
    };
    digits.parse::<u32>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(bad)
}

/// An option that was given.
pub fn put(fields: &mut Fields, field: &'static str, value: Option<impl ToString>) {
    if let Some(value) = value {
        fields.insert(field, value.to_string().into());
    }
}

/// A repeated option that was given.
pub fn put_all<T: ToString>(fields: &mut Fields, field: &'static str, values: &[T]) {
    if !values.is_empty() {
        fields.insert(field, values.iter().map(ToString::to_string).collect::<Vec<_>>().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[Key] = &[
        Key { names: &["mtu"], field: "mtu", form: Form::Number },
        Key { names: &["domain", "dns_domain"], field: "dns_domain", form: Form::Text },
        Key { names: &["trunk"], field: "trunk_vlans", form: Form::Vlans },
        Key { names: &["route"], field: "host_routes", form: Form::Routes },
        Key { names: &["lease-time"], field: "lease_seconds", form: Form::Seconds },
    ];

    fn read(texts: &[&str]) -> Result<Fields, CliError> {
        parse(KEYS, &texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn assignments_become_typed_fields() {
        let fields = read(&["mtu=1450", "domain=", "trunk=10,20-22,21", "route=10.9.0.0/16=10.0.0.9", "lease-time=2h"]);
        let fields = fields.expect("valid");
        assert_eq!(fields["mtu"], Variant::U32(1450));
        assert_eq!(fields["dns_domain"], Variant::from(""));
        assert_eq!(fields["trunk_vlans"], Variant::from(vec![10u16, 20, 21, 22]));
        assert_eq!(fields["host_routes"], Variant::from(vec![("10.9.0.0/16".to_owned(), "10.0.0.9".to_owned())]));
        assert_eq!(fields["lease_seconds"], Variant::U32(7200));
    }

    #[test]
    fn wrong_assignments_say_what_would_be_right() {
        let told = |texts: &[&str]| read(texts).expect_err("refused").to_string();
        assert_eq!(
            told(&["colour=red"]),
            "there is no field 'colour'; the fields are mtu, domain, trunk, route, lease-time"
        );
        assert!(told(&["mtu"]).contains("KEY=VALUE"));
        assert!(told(&["mtu=wide"]).starts_with("mtu: 'wide'"));
        assert!(told(&["mtu=1", "mtu=2"]).contains("twice"));
    }

    #[test]
    fn rates_and_pairs() {
        assert_eq!(["999", "500k", "100M", "1G"].map(kilobits), [Ok(1), Ok(500), Ok(100_000), Ok(1_000_000)]);
        for bad in ["", "M", "1T", "-1k", "5000G", "1é"] {
            assert!(kilobits(bad).is_err(), "{bad}");
        }
        let two = ["192.0.2.1,52:54:00:00:00:01", "2001:db8::/32"];
        assert_eq!(pairs("192.0.2.1,52:54:00:00:00:01, 2001:db8::/32"), two);
    }

    #[test]
    fn time_spans() {
        assert_eq!(
            ["90", "90s", "1h", "2d", "infinite"].map(seconds),
            [Ok(90), Ok(90), Ok(3600), Ok(172_800), Ok(u32::MAX)]
        );
        for bad in ["", "h", "1w", "-1s", "99999999d", "1é"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
