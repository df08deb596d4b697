//! What people want of a network's DNS.

use super::{Intent, IntentError, Network, NetworkId};
use crate::net::{DnsForwarder, DnsRecord, RecordData, RecordName};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The most records, and forwarders, that a network has.
pub const MAX_RECORDS: usize = 1024;
pub const MAX_FORWARDERS: usize = 64;

/// A network's DNS, beside its domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkDns {
    /// Names in the domain beside the guests'.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<DnsRecord>,
    /// Who is asked about other names, before the host's configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forwarders: Vec<DnsForwarder>,
    /// Networks whose guests may ask for this one's names. One that is deleted may still stand here, and means nothing.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub shared_with: BTreeSet<NetworkId>,
    /// Whether names in the domain that nobody has are asked of others; else they do not exist.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forward_unknown: bool,
}

/// The host's DNS, from the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostDns {
    pub forwarders: Vec<DnsForwarder>,
    /// Whether answers from outside with private addresses are refused (DNS rebinding).
    pub refuse_private: bool,
    /// Whether reverse names of private addresses that no network has stay here (RFC 6303).
    pub local_reverse: bool,
    /// How long after its end an answer may be given where no resolver answers, seconds; 0: never (RFC 8767).
    pub stale_seconds: u32,
    /// Questions a second that a guest may ask; 0: as many as it likes while no other guest is kept waiting.
    pub rate_limit: u32,
}

pub(super) fn check(intent: &Intent, network: &Network) -> Result<(), IntentError> {
    let dns = &network.dns;
    if dns.records.len() > MAX_RECORDS {
        return Err(invalid(format!(
            "a network has at most {MAX_RECORDS} DNS records; these are {}",
            dns.records.len()
        )));
    }
    if dns.forwarders.len() > MAX_FORWARDERS {
        return Err(invalid(format!("a network has at most {MAX_FORWARDERS} DNS forwarders")));
    }
    if dns.shared_with.contains(&network.id) {
        return Err(invalid("a network's guests see its own names anyhow; leave it out of dns_shared_with".into()));
    }
    // What an earlier version had may have been deleted since.
    let known = intent.network(network.id).map(|old| &old.dns.shared_with);
    for other in &dns.shared_with {
        if intent.network(*other).is_none() && !known.is_some_and(|known| known.contains(other)) {
            return Err(IntentError::not_found("network", other));
        }
    }
    check_records(network)
}

fn check_records(network: &Network) -> Result<(), IntentError> {
    let domain = network.domain();
    let mut types: BTreeMap<&RecordName, BTreeSet<&str>> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for record in &network.dns.records {
        let name = record.name.as_str();
        let bad = |why: &str| Err(invalid(format!("DNS record '{record}': {why}")));
        if !seen.insert((&record.name, &record.data)) {
            return bad("it is there already");
        }
        if name.len() + 1 + domain.as_str().len() > 253 {
            return bad(&format!("its name is too long below '{domain}'"));
        }
        if name == domain.as_str() || name.ends_with(&format!(".{domain}")) {
            return bad(&format!(
                "leave '{domain}' out of the name: it is the network's domain, and added; '@' is the domain itself"
            ));
        }
        let leads = matches!(record.data, RecordData::A(_) | RecordData::Aaaa(_) | RecordData::Cname(_));
        if name == "gateway" && leads {
            return bad("'gateway' is the host's own name here");
        }
        if name == RecordName::DOMAIN && matches!(record.data, RecordData::Cname(_)) {
            return bad("the domain itself cannot be an alias (RFC 1034 section 3.6.2); use A or AAAA records");
        }
        types.entry(&record.name).or_default().insert(record.data.type_name());
    }
    for (name, types) in types {
        let aliases = network.dns.records.iter().filter(|r| r.name == *name && matches!(r.data, RecordData::Cname(_)));
        if types.contains("CNAME") && (types.len() > 1 || aliases.count() > 1) {
            return Err(invalid(format!(
                "'{name}' has a CNAME, beside which nothing can stand (RFC 1034 section 3.6.2)"
            )));
        }
    }
    Ok(())
}

fn invalid(text: String) -> IntentError {
    IntentError::Invalid(text)
}

#[cfg(test)]
mod tests {
    use crate::{
        intent::{Change, HostConfig, Intent, IntentError, NetworkDraft, NetworkId, ResourceName},
        net::DnsRecord,
    };
    use uuid::Uuid;

    fn with(
        intent: &mut Intent,
        id: u128,
        name: &str,
        change: impl FnOnce(&mut NetworkDraft),
    ) -> Result<(), IntentError> {
        let mut draft = NetworkDraft::named(ResourceName::new(name).expect("name"));
        change(&mut draft);
        let id = NetworkId(Uuid::from_u128(id));
        let network = draft.complete(id, intent, intent.network(id).cloned().as_ref())?;
        let _ = intent.apply(vec![Change::PutNetwork(network)], &HostConfig::default())?;
        Ok(())
    }

    fn records(lines: &[&str]) -> Vec<DnsRecord> {
        lines.iter().map(|line| line.parse().expect(line)).collect()
    }

    #[test]
    fn records_fit_together() {
        let mut intent = Intent::default();
        let mut put = |lines: &[&str]| with(&mut intent, 1, "lab", |draft| draft.dns_records = records(lines));
        put(&["www A 192.0.2.1", "www A 192.0.2.2", "www TXT x", "alias CNAME www", "@ MX 10 www"]).expect("good");
        for (lines, why) in [
            (&["www A 192.0.2.1", "WWW 60 A 192.0.2.1"][..], "there already"),
            (&["www.lab.internal A 192.0.2.1"], "leave 'lab.internal' out"),
            (&["gateway A 192.0.2.1"], "host's own name"),
            (&["@ CNAME www"], "cannot be an alias"),
            (&["a CNAME b", "a TXT c"], "nothing can stand"),
            (&["a CNAME b", "a CNAME c"], "nothing can stand"),
        ] {
            let error = put(lines).expect_err("refused").to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn there_are_limits() {
        let mut intent = Intent::default();
        let many: Vec<DnsRecord> =
            (0..=super::MAX_RECORDS).map(|n| format!("n{n} TXT x").parse().expect("record")).collect();
        let whole = many[1..].to_vec();
        with(&mut intent, 1, "lab", |draft| draft.dns_records = whole).expect("as many as may be");
        with(&mut intent, 1, "lab", |draft| draft.dns_records = many).expect_err("one more");
        let forwarders =
            (0..=super::MAX_FORWARDERS).map(|n| format!("d{n}.example=10.0.0.1").parse().expect("forwarder"));
        with(&mut intent, 1, "lab", |draft| draft.dns_forwarders = forwarders.collect()).expect_err("too many");
    }

    #[test]
    fn names_are_shared_with_networks_that_are_there() {
        let mut intent = Intent::default();
        let share = |with: &str| {
            let with = with.to_owned();
            move |draft: &mut NetworkDraft| draft.dns_shared_with = vec![with]
        };
        with(&mut intent, 1, "a", share("b")).expect_err("there is no b");
        with(&mut intent, 2, "b", |_| ()).expect("new");
        with(&mut intent, 1, "a", share("b")).expect("there is a b");
        with(&mut intent, 1, "a", share("a")).expect_err("itself");
        let b = NetworkId(Uuid::from_u128(2));
        let _ = intent.apply(vec![Change::DeleteNetwork(b)], &HostConfig::default()).expect("nothing holds it");
        let a = intent.network(NetworkId(Uuid::from_u128(1))).expect("there").clone();
        assert_eq!(NetworkDraft::of_in(&a, &intent).dns_shared_with, Vec::<String>::new(), "what is gone is not shown");
        let _ = intent.apply(vec![Change::PutNetwork(a)], &HostConfig::default()).expect("nor in the way");
    }
}
