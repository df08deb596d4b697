use super::{name::WireName, query::rtype, reverse, writer::Writer};
use crate::net::{DnsLabel, DnsRecord, DomainName, IpNet, RecordData};
use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};
use uuid::Uuid;

/// The most names that a zone holds.
pub const MAX_NAMES: usize = 65_536;
/// The most addresses that a name has.
pub const MAX_ADDRESSES: usize = 32;
/// How long, in seconds, an answer may be kept: short, for a name moves to another guest at any time.
pub const RECORD_TTL: u32 = 30;

/// Who says that a guest has a name; where two owners want the same one, the greater source wins. What a guest says of
/// itself ranks lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NameSource {
    /// The host name in the guest's own DHCP request.
    Dhcp,
    /// The name of the libvirt domain.
    Domain,
    /// The port's `dns_name`.
    Port,
    /// This network's gateway itself.
    Gateway,
}

/// Why a name cannot stand in the zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    #[error("the domain '{0}' is too long for a host name to fit below it; use one of at most 189 characters")]
    DomainTooLong(DomainName),
    #[error("the zone '{0}' is full: it has {MAX_NAMES} names")]
    Full(DomainName),
    #[error("the name '{label}' has {count} addresses; at most {MAX_ADDRESSES} are served")]
    TooManyAddresses { label: DnsLabel, count: usize },
    #[error("a guest may not name itself '{0}': programs trust whoever has that name; set it as the port's dns_name")]
    Trusted(DnsLabel),
}

/// One network's names. Finding, adding and removing one costs the same however many there are.
#[derive(Debug)]
pub struct Zone {
    network: Uuid,
    domain: DomainName,
    pub(super) apex: WireName,
    pub(super) server: WireName,
    pub(super) hostmaster: WireName,
    pub(super) prefixes: Vec<IpNet>,
    pub(super) serial: u32,
    /// Whether names in the domain that nobody has do not exist, rather than being an upstream resolver's matter.
    pub(super) local: bool,
    claims: HashMap<(Uuid, NameSource), Claim>,
    /// Who wants the label, the holder first.
    by_label: HashMap<Box<[u8]>, BTreeSet<Rank>>,
    by_address: HashMap<IpAddr, BTreeSet<Rank>>,
    /// What people have written down, by the labels before the apex. A name that only has others below it is there
    /// with no record (RFC 4592 section 2.2.2).
    records: HashMap<Box<[u8]>, Vec<StaticRecord>>,
    record_names: HashMap<IpAddr, Box<[u8]>>,
}

/// A record of a person's, ready to be written.
#[derive(Debug, Clone)]
pub(super) struct StaticRecord {
    pub ttl: u32,
    pub kind: u16,
    data: StaticData,
}

#[derive(Debug, Clone)]
enum StaticData {
    Plain(Box<[u8]>),
    /// A name that may be compressed, after these bytes.
    Name(Box<[u8]>, Box<[u8]>),
}

impl StaticRecord {
    /// `None` where a target in the domain would be too long.
    fn new(record: &DnsRecord, domain: &DomainName) -> Option<Self> {
        let target = |target: &crate::net::RecordTarget| WireName::from_text(&target.within(domain));
        let plain = |bytes: &[u8]| StaticData::Plain(bytes.into());
        let (kind, data) = match &record.data {
            RecordData::A(address) => (rtype::A, plain(&address.octets())),
            RecordData::Aaaa(address) => (rtype::AAAA, plain(&address.octets())),
            RecordData::Cname(name) => (rtype::CNAME, StaticData::Name([].into(), (*target(name)?).into())),
            RecordData::Mx { preference, exchange } => {
                (rtype::MX, StaticData::Name(preference.to_be_bytes().into(), (*target(exchange)?).into()))
            }
            // Its name is never compressed (RFC 2782).
            RecordData::Srv { priority, weight, port, target: name } => {
                let numbers = [priority, weight, port].map(|n| n.to_be_bytes()).concat();
                (rtype::SRV, plain(&[&numbers, &*target(name)?].concat()))
            }
            RecordData::Txt(strings) => {
                let string = |text: &Arc<str>| [&[text.len() as u8][..], text.as_bytes()].concat();
                (rtype::TXT, plain(&strings.iter().map(string).collect::<Vec<_>>().concat()))
            }
        };
        Some(Self { ttl: record.ttl.unwrap_or(RECORD_TTL), kind, data })
    }

    pub fn write(&self, writer: &mut Writer<'_>) {
        match &self.data {
            StaticData::Plain(bytes) => writer.bytes(bytes),
            StaticData::Name(before, name) => {
                writer.bytes(before);
                writer.name(name);
            }
        }
    }

    /// Where a CNAME leads.
    pub fn alias(&self) -> Option<WireName> {
        match &self.data {
            StaticData::Name(_, name) if self.kind == rtype::CNAME => Some(WireName::read(name, 0)?.0),
            _ => None,
        }
    }

    fn address(&self) -> Option<IpAddr> {
        match &self.data {
            StaticData::Plain(bytes) => match (self.kind, &**bytes) {
                (rtype::A, bytes) => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
                (rtype::AAAA, bytes) => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
                _ => None,
            },
            StaticData::Name(..) => None,
        }
    }
}

/// A zone that is served while it changes: the next question sees the change.
#[derive(Debug, Clone)]
pub struct SharedZone(Arc<RwLock<Zone>>);

impl SharedZone {
    pub fn new(zone: Zone) -> Self {
        Self(Arc::new(RwLock::new(zone)))
    }

    /// Changes the zone, or replaces it. Questions wait meanwhile: no long work in there.
    pub fn update<T>(&self, change: impl FnOnce(&mut Zone) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Zone> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same zone, not one with the same in it.
impl PartialEq for SharedZone {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SharedZone {}

#[derive(Debug)]
struct Claim {
    rank: Rank,
    label: DnsLabel,
    addresses: Vec<IpAddr>,
}

/// Order among those that want a name, the least first: the better source, then the older, then the lesser id, so that
/// a restart finds the same holder whatever the order in which the names come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    source: Reverse<NameSource>,
    since: u64,
    owner: Uuid,
}

impl Rank {
    fn key(&self) -> (Uuid, NameSource) {
        (self.owner, self.source.0)
    }
}

/// The longest domain below which any label fits: 255 bytes with 1 + 63 before it.
const MAX_APEX: usize = 255 - 64;

/// The gateway's own name, also the target of the zone's NS record.
const GATEWAY: &str = "gateway";

/// Names through which programs find a proxy, a tunnel or themselves (VU#598349, RFC 5214 section 8.4, RFC 6761).
const TRUSTED: [&str; 4] = ["isatap", "localhost", GATEWAY, "wpad"];

impl Zone {
    /// The zone of a network with that domain. It has authority over the reverse names of `prefixes` too (those of the
    /// network's subnets); `gateways` are this server's own addresses there, named `gateway.<domain>`.
    pub fn new(
        network: Uuid,
        domain: DomainName,
        prefixes: impl IntoIterator<Item = IpNet>,
        gateways: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Self, ZoneError> {
        let names = |domain: &DomainName| {
            let apex = WireName::from_text(domain.as_str()).filter(|apex| apex.len() <= MAX_APEX)?;
            let below = |label: &str| WireName::prepend(label.as_bytes(), &apex);
            Some((apex, below(GATEWAY)?, below("hostmaster")?))
        };
        let Some((apex, server, hostmaster)) = names(&domain) else { return Err(ZoneError::DomainTooLong(domain)) };
        let mut zone = Self {
            network,
            domain,
            apex,
            server,
            hostmaster,
            prefixes: Vec::new(),
            serial: 0,
            local: true,
            claims: HashMap::new(),
            by_label: HashMap::new(),
            by_address: HashMap::new(),
            records: HashMap::new(),
            record_names: HashMap::new(),
        };
        zone.set_subnets(prefixes, gateways)?;
        Ok(zone)
    }

    /// Takes other subnets and gateway addresses; the guests' names stay.
    pub fn set_subnets(
        &mut self,
        prefixes: impl IntoIterator<Item = IpNet>,
        gateways: impl IntoIterator<Item = IpAddr>,
    ) -> Result<(), ZoneError> {
        let label = DnsLabel::new(GATEWAY).expect("a constant that is a label");
        self.publish(self.network, NameSource::Gateway, label, 0, gateways.into_iter().collect())?;
        self.prefixes = prefixes.into_iter().map(|prefix| prefix.trunc()).collect();
        self.touch();
        Ok(())
    }

    /// Takes these records in place of those before; those that do not fit below the domain are left out, and given
    /// back.
    pub fn set_records<'a>(&mut self, records: impl IntoIterator<Item = &'a DnsRecord>) -> Vec<&'a DnsRecord> {
        self.records.clear();
        self.record_names.clear();
        let mut left_out = Vec::new();
        for record in records {
            let labels = record.name.labels().map(str::as_bytes);
            let owner = WireName::from_labels(labels.chain(self.apex.labels()));
            let (Some(owner), Some(data)) = (owner, StaticRecord::new(record, &self.domain)) else {
                left_out.push(record);
                continue;
            };
            let end = owner.len() - self.apex.len();
            if let Some(address) = data.address().filter(|_| !record.name.is_wildcard()) {
                self.record_names.entry(address).or_insert_with(|| (*owner).into());
            }
            self.records.entry(owner[..end].into()).or_default().push(data);
            for above in owner.suffixes().map(|above| owner.len() - above.len()).take_while(|at| *at < end) {
                self.records.entry(owner[above..end].into()).or_default();
            }
        }
        // A set of records has one time to live (RFC 2181 section 5.2), and types stand together.
        for set in self.records.values_mut() {
            set.sort_by_key(|record| (record.kind, record.ttl));
            for i in 1..set.len() {
                if set[i].kind == set[i - 1].kind {
                    set[i].ttl = set[i - 1].ttl;
                }
            }
        }
        self.touch();
        left_out
    }

    /// Whether names in the domain that nobody has do not exist (the default), or are an upstream resolver's matter.
    pub fn set_local(&mut self, local: bool) {
        self.local = local;
    }

    /// Whether an address is in a subnet of the network, or on its link: only those who are there are served.
    pub fn serves(&self, client: IpAddr) -> bool {
        let link_local = matches!(client, IpAddr::V6(v6) if v6.is_unicast_link_local());
        link_local || self.prefixes.iter().any(|prefix| prefix.contains(&client))
    }

    pub fn network(&self) -> Uuid {
        self.network
    }

    pub fn domain(&self) -> &DomainName {
        &self.domain
    }

    /// Says that `owner` (a port's id) is called `label`, after `source`, `since` (seconds, on any one clock: a port's
    /// making, a lease's start), with these addresses; it replaces what that source said of that owner before. Where
    /// another owner holds the label, this one waits behind it and answers when that one leaves.
    pub fn publish(
        &mut self,
        owner: Uuid,
        source: NameSource,
        label: DnsLabel,
        since: u64,
        addresses: Vec<IpAddr>,
    ) -> Result<(), ZoneError> {
        if source == NameSource::Dhcp && TRUSTED.contains(&label.as_str()) {
            return Err(ZoneError::Trusted(label));
        }
        if addresses.len() > MAX_ADDRESSES {
            return Err(ZoneError::TooManyAddresses { label, count: addresses.len() });
        }
        let rank = Rank { source: Reverse(source), since, owner };
        let claim = Claim { rank, label, addresses };
        match self.claims.get(&rank.key()) {
            Some(old) if old.rank == rank && old.label == claim.label && old.addresses == claim.addresses => {
                return Ok(());
            }
            Some(_) => {
                self.withdraw(owner, source);
            }
            None if self.claims.len() >= MAX_NAMES => return Err(ZoneError::Full(self.domain.clone())),
            None => {}
        }
        self.by_label.entry(claim.label.as_str().as_bytes().into()).or_default().insert(rank);
        for &address in &claim.addresses {
            self.by_address.entry(address).or_default().insert(rank);
        }
        self.claims.insert(rank.key(), claim);
        self.touch();
        Ok(())
    }

    /// Forgets what `source` said of `owner`; whether it had said anything.
    pub fn withdraw(&mut self, owner: Uuid, source: NameSource) -> bool {
        let Some(Claim { rank, label, addresses }) = self.claims.remove(&(owner, source)) else { return false };
        if let Some(ranks) = self.by_label.get_mut(label.as_str().as_bytes()) {
            ranks.remove(&rank);
            if ranks.is_empty() {
                self.by_label.remove(label.as_str().as_bytes());
            }
        }
        for address in addresses {
            if let Some(ranks) = self.by_address.get_mut(&address) {
                ranks.remove(&rank);
                if ranks.is_empty() {
                    self.by_address.remove(&address);
                }
            }
        }
        self.touch();
        true
    }

    /// Forgets a port with all its names.
    pub fn withdraw_owner(&mut self, owner: Uuid) {
        for source in [NameSource::Dhcp, NameSource::Domain, NameSource::Port] {
            self.withdraw(owner, source);
        }
    }

    /// Forgets the guests' names that `keep` does not want, as after a full pass over what should be there.
    pub fn retain(&mut self, mut keep: impl FnMut(Uuid, NameSource) -> bool) {
        let gone: Vec<_> = self
            .claims
            .keys()
            .copied()
            .filter(|&(owner, source)| source != NameSource::Gateway && !keep(owner, source))
            .collect();
        for (owner, source) in gone {
            self.withdraw(owner, source);
        }
    }

    /// Every guest's name that is answered, with its addresses, in no order.
    pub fn names(&self) -> impl Iterator<Item = (&str, &[IpAddr])> {
        self.by_label.keys().filter_map(|label| Some((std::str::from_utf8(label).ok()?, self.addresses(label)?)))
    }

    /// The addresses of the holder of a lower-case label; `None` where nobody has it.
    pub(super) fn addresses(&self, label: &[u8]) -> Option<&[IpAddr]> {
        let holder = self.by_label.get(label)?.first()?;
        Some(&self.claims.get(&holder.key())?.addresses)
    }

    /// What people have written down of a name, given as its labels before the apex.
    pub(super) fn records(&self, labels: &[u8]) -> Option<&[StaticRecord]> {
        self.records.get(labels).map(Vec::as_slice)
    }

    pub(super) fn has_records(&self) -> bool {
        !self.records.is_empty()
    }

    /// The best name that an address has, of those that resolve to it: a guest's, given by a person, then a record,
    /// then what the guest calls itself.
    pub(super) fn name_of(&self, address: IpAddr) -> Option<WireName> {
        let guest = self.label_of(address);
        let record = || self.record_names.get(&address).and_then(|name| Some(WireName::read(name, 0)?.0));
        match guest {
            Some((label, source)) if source > NameSource::Dhcp => self.below(label),
            Some((label, _)) => record().or_else(|| self.below(label)),
            None => record(),
        }
    }

    fn below(&self, label: &DnsLabel) -> Option<WireName> {
        WireName::prepend(label.as_str().as_bytes(), &self.apex)
    }

    fn label_of(&self, address: IpAddr) -> Option<(&DnsLabel, NameSource)> {
        self.by_address.get(&address)?.iter().find_map(|rank| {
            let label = &self.claims.get(&rank.key())?.label;
            let holder = self.by_label.get(label.as_str().as_bytes())?.first()?;
            (holder == rank).then_some((label, rank.source.0))
        })
    }

    /// How many labels the reverse zone of ours has that a block is in.
    pub(super) fn reverse_depth(&self, block: &IpNet) -> Option<usize> {
        let prefix = self.prefixes.iter().find(|prefix| prefix.contains(block))?;
        Some(reverse::apex_depth(prefix))
    }

    fn touch(&mut self) {
        self.serial = self.serial.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let domain = DomainName::new("nat.internal").expect("domain");
        let prefix = "192.168.123.0/24".parse().expect("prefix");
        Zone::new(Uuid::nil(), domain, [prefix], [ip("192.168.123.1")]).expect("zone")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn label(text: &str) -> DnsLabel {
        DnsLabel::new(text).expect("label")
    }

    fn owner(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    #[test]
    fn the_better_source_then_the_older_holds_a_name() {
        let mut zone = zone();
        let claims = [
            (1, NameSource::Dhcp, 10, "192.168.123.11"),
            (2, NameSource::Port, 30, "192.168.123.12"),
            (3, NameSource::Port, 20, "192.168.123.13"),
            (4, NameSource::Domain, 5, "192.168.123.14"),
        ];
        for (who, source, since, address) in claims {
            zone.publish(owner(who), source, label("web"), since, vec![ip(address)]).expect("room");
        }
        let holders: Vec<_> = [3, 2, 4, 1]
            .map(|next| {
                let held = zone.addresses(b"web").expect("held")[0];
                let reverse = zone.label_of(held).expect("reverse").0.as_str().to_owned();
                zone.withdraw_owner(owner(next));
                assert_eq!(zone.label_of(held), None);
                (held.to_string(), reverse)
            })
            .into();
        let expected = ["13", "12", "14", "11"].map(|n| (format!("192.168.123.{n}"), "web".to_owned()));
        assert_eq!(holders, expected);
        assert_eq!(zone.addresses(b"web"), None);
        assert_eq!(zone.names().count(), 1, "the gateway remains");
    }

    #[test]
    fn a_source_says_one_thing_of_an_owner() {
        let mut zone = zone();
        let at = ip("192.168.123.11");
        zone.publish(owner(1), NameSource::Dhcp, label("old"), 1, vec![at]).expect("room");
        let serial = zone.serial;
        zone.publish(owner(1), NameSource::Dhcp, label("old"), 1, vec![at]).expect("room");
        assert_eq!(zone.serial, serial, "nothing changed");
        zone.publish(owner(1), NameSource::Dhcp, label("new"), 1, vec![at]).expect("room");
        assert_eq!(zone.addresses(b"old"), None);
        assert_eq!(zone.label_of(at), Some((&label("new"), NameSource::Dhcp)));
        zone.publish(owner(1), NameSource::Port, label("proper"), 1, vec![at]).expect("room");
        assert_eq!(zone.label_of(at), Some((&label("proper"), NameSource::Port)));
        assert_eq!(zone.addresses(b"new"), Some(&[at][..]));
    }

    #[test]
    fn a_guest_cannot_take_a_name_that_programs_trust() {
        let mut zone = zone();
        for name in TRUSTED {
            let at = vec![ip("192.168.123.66")];
            let taken = zone.publish(owner(1), NameSource::Dhcp, label(name), 1, at.clone());
            assert_eq!(taken, Err(ZoneError::Trusted(label(name))));
            zone.publish(owner(1), NameSource::Port, label(name), 1, at).expect("an administrator may");
        }
        assert_eq!(zone.addresses(GATEWAY.as_bytes()), Some(&[ip("192.168.123.1")][..]));
    }

    #[test]
    fn a_full_pass_keeps_what_should_be_there() {
        let mut zone = zone();
        for n in 1..=3 {
            let at = vec![IpAddr::from([192, 168, 123, n as u8])];
            zone.publish(owner(n), NameSource::Port, label(&format!("g{n}")), 0, at).expect("room");
        }
        zone.retain(|who, _| who == owner(2));
        zone.set_subnets(["10.0.0.0/24".parse().expect("prefix")], [ip("10.0.0.1")]).expect("room");
        let mut names: Vec<_> = zone.names().map(|(name, at)| (name.to_owned(), at.to_vec())).collect();
        names.sort();
        assert_eq!(names, [("g2".into(), vec![ip("192.168.123.2")]), (GATEWAY.into(), vec![ip("10.0.0.1")])]);
        assert!(zone.reverse_depth(&"192.168.123.2/32".parse().expect("block")).is_none());
    }

    #[test]
    fn it_is_bounded() {
        let mut zone = zone();
        let many = vec![ip("::1"); MAX_ADDRESSES + 1];
        assert!(matches!(
            zone.publish(owner(1), NameSource::Port, label("a"), 0, many),
            Err(ZoneError::TooManyAddresses { .. })
        ));
        for n in 1..MAX_NAMES as u128 {
            zone.publish(owner(n), NameSource::Dhcp, label("web"), 0, vec![]).expect("room");
        }
        let full = zone.publish(owner(0xffff_ffff), NameSource::Dhcp, label("web"), 0, vec![]);
        assert!(matches!(full, Err(ZoneError::Full(_))));
        let long = DomainName::new(&["a".repeat(63), "b".repeat(63), "c".repeat(63)].join(".")).expect("domain");
        assert!(matches!(Zone::new(Uuid::nil(), long, [], []), Err(ZoneError::DomainTooLong(_))));
    }
}
