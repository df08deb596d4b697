//! Security groups, address groups and what ports say of security, as people ask for them.

use super::{
    AddressGroup, AddressGroupId, AddressPair, Direction, Intent, IntentError, NetworkSecurity, PortSecurity, Qos,
    Rate, ResourceName, SecurityGroup, SecurityGroupId,
    rule::{PrefixText, RemoteDraft, RuleDraft, RuleDrafts},
};
use crate::net::{IpNet, MacAddr};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{collections::BTreeSet, fmt, str::FromStr};
use uuid::Uuid;

/// A security group to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityGroupDraft {
    pub name: ResourceName,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Default: yes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stateful: Option<bool>,
    /// Each in one line, or its fields. Default: what its ports send, all of it, as in Neutron.
    #[serde(default, deserialize_with = "rules", skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<RuleDraft>>,
}

/// An address group to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressGroupDraft {
    pub name: ResourceName,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Prefixes and single addresses.
    #[serde(default, deserialize_with = "prefixes", skip_serializing_if = "BTreeSet::is_empty")]
    pub addresses: BTreeSet<IpNet>,
}

fn rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<RuleDraft>>, D::Error> {
    let rules: Option<Vec<RuleDrafts>> = Option::deserialize(deserializer)?;
    Ok(rules.map(|rules| rules.into_iter().flat_map(|rules| rules.0).collect()))
}

fn prefixes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<IpNet>, D::Error> {
    Ok(Vec::<PrefixText>::deserialize(deserializer)?.into_iter().map(|prefix| prefix.0).collect())
}

impl SecurityGroup {
    /// The group that is there from the first start.
    pub const DEFAULT_NAME: &str = "default";

    /// The identity of the group `default`, the same everywhere (RFC 9562 v5).
    pub fn default_id() -> SecurityGroupId {
        SecurityGroupId(Uuid::new_v5(&Uuid::NAMESPACE_URL, b"https://vmfabric.org/security-group/default"))
    }

    pub fn is_default(&self) -> bool {
        self.id == Self::default_id()
    }

    /// The group `default` as it is made: all that its ports send; from its own members, and from this host.
    pub fn default_group() -> Result<Self, IntentError> {
        let rules = [
            (Direction::Egress, RemoteDraft::Any),
            (Direction::Ingress, RemoteDraft::Group(Self::DEFAULT_NAME.to_owned())),
            (Direction::Ingress, RemoteDraft::Host),
        ];
        let rules = rules.iter().flat_map(|(direction, remote)| RuleDraft::all(*direction, remote)).collect();
        let name = ResourceName::new(Self::DEFAULT_NAME).map_err(|error| IntentError::Invalid(error.to_string()))?;
        let description = "Made by vmfabric; change its rules as you like".to_owned();
        let draft = SecurityGroupDraft { name, description, stateful: None, rules: Some(rules) };
        draft.complete(Self::default_id(), &Intent::default())
    }
}

impl SecurityGroupDraft {
    pub fn of(group: &SecurityGroup) -> Self {
        Self {
            name: group.name.clone(),
            description: group.description.clone(),
            stateful: Some(group.stateful),
            rules: Some(group.rules.iter().map(RuleDraft::of).collect()),
        }
    }

    pub fn complete(self, id: SecurityGroupId, intent: &Intent) -> Result<SecurityGroup, IntentError> {
        let rules = self.rules.unwrap_or_else(|| RuleDraft::all(Direction::Egress, &RemoteDraft::Any).into());
        let (name, description, stateful) = (self.name, self.description, self.stateful.unwrap_or(true));
        let mut group = SecurityGroup { id, name, description, stateful, rules: Vec::new() };
        let rules = rules.into_iter().map(|rule| rule.complete(intent, &group)).collect::<Result<_, _>>()?;
        group.rules = rules;
        Ok(group)
    }
}

impl AddressGroupDraft {
    pub fn of(group: &AddressGroup) -> Self {
        let (name, description) = (group.name.clone(), group.description.clone());
        Self { name, description, addresses: group.addresses.clone() }
    }

    pub fn complete(self, id: AddressGroupId) -> AddressGroup {
        AddressGroup { id, name: self.name, description: self.description, addresses: self.addresses }
    }
}

impl fmt::Display for AddressPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mac {
            Some(mac) => write!(f, "{},{mac}", self.ip),
            None => self.ip.fmt(f),
        }
    }
}

impl FromStr for AddressPair {
    type Err = IntentError;

    /// `192.0.2.7`, `192.0.2.0/24` or `192.0.2.7,52:54:00:12:34:56`.
    fn from_str(text: &str) -> Result<Self, IntentError> {
        let (ip, mac) = text.split_once(',').map_or((text, ""), |(ip, mac)| (ip, mac));
        pair(ip.trim(), mac.trim())
    }
}

fn pair(ip: &str, mac: &str) -> Result<AddressPair, IntentError> {
    let mac = Some(mac).filter(|mac| !mac.is_empty()).map(str::parse::<MacAddr>).transpose();
    let PrefixText(ip) = ip.parse()?;
    Ok(AddressPair { ip, mac: mac.map_err(|error| IntentError::Invalid(error.to_string()))? })
}

/// An address pair as text, or as address and MAC address, the latter perhaps empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairDraft(pub AddressPair);

impl Serialize for PairDraft {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PairDraft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = PairDraft;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("IP[/LENGTH][,MAC], or the two apart")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PairDraft, E> {
                text.parse().map(PairDraft).map_err(E::custom)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<PairDraft, A::Error> {
                let ip: String = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let mac: Option<String> = seq.next_element()?;
                if seq.next_element::<de::IgnoredAny>()?.is_some() {
                    return Err(de::Error::invalid_length(3, &self));
                }
                pair(&ip, &mac.unwrap_or_default()).map(PairDraft).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Groups by their names or ids.
pub(super) fn find_groups(intent: &Intent, names: &[String]) -> Result<BTreeSet<SecurityGroupId>, IntentError> {
    names.iter().map(|name| intent.find_security_group(name).map(|group| group.id)).collect()
}

pub(super) fn names_of(groups: &BTreeSet<SecurityGroupId>) -> Vec<String> {
    groups.iter().map(ToString::to_string).collect()
}

impl super::NetworkDraft {
    pub(super) fn security(&self, intent: &Intent) -> Result<NetworkSecurity, IntentError> {
        let default = NetworkSecurity::default();
        Ok(NetworkSecurity {
            port_security: self.port_security.unwrap_or(default.port_security),
            groups: find_groups(intent, self.security_groups.as_deref().unwrap_or_default())?,
            isolated: self.isolated.unwrap_or(default.isolated),
        })
    }
}

impl super::PortDraft {
    pub(super) fn security(&self, intent: &Intent) -> Result<PortSecurity, IntentError> {
        let rate = |kbps: Option<u32>, burst: Option<u32>, direction: &str| match (kbps, burst) {
            (None, None) => Ok(None),
            (Some(kbps), burst) => Ok(Some(Rate { kbps, burst_kb: burst.unwrap_or_default() })),
            (None, Some(_)) => Err(IntentError::Invalid(format!(
                "{direction}_burst_kb needs {direction}_kbps: a burst is what a rate may exceed at once"
            ))),
        };
        let pairs: BTreeSet<AddressPair> = self.allowed_address_pairs.iter().map(|pair| pair.0).collect();
        if pairs.len() != self.allowed_address_pairs.len() {
            return Err(IntentError::Invalid("an allowed address is given twice".into()));
        }
        Ok(PortSecurity {
            port_security: self.port_security,
            groups: self.security_groups.as_deref().map(|names| find_groups(intent, names)).transpose()?,
            isolated: self.isolated,
            address_pairs: pairs,
            qos: Qos {
                egress: rate(self.egress_kbps, self.egress_burst_kb, "egress")?,
                ingress: rate(self.ingress_kbps, self.ingress_burst_kb, "ingress")?,
                dscp: self.dscp,
            },
        })
    }

    pub(super) fn take_security(&mut self, security: &PortSecurity) {
        self.port_security = security.port_security;
        self.security_groups = security.groups.as_ref().map(names_of);
        self.isolated = security.isolated;
        self.allowed_address_pairs = security.address_pairs.iter().copied().map(PairDraft).collect();
        let burst = |rate: Option<Rate>| rate.map(|rate| rate.burst_kb).filter(|burst| *burst != 0);
        let Qos { egress, ingress, dscp } = security.qos;
        (self.egress_kbps, self.egress_burst_kb) = (egress.map(|rate| rate.kbps), burst(egress));
        (self.ingress_kbps, self.ingress_burst_kb) = (ingress.map(|rate| rate.kbps), burst(ingress));
        self.dscp = dscp;
    }
}
