use super::{
    reverse::{ReverseName, apex_len},
    special::{self, Special},
    zone::Zone,
};
use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{NS, PTR, SOA},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How long, in seconds, an answer may be kept: short, for a name moves to another guest at any time.
pub const RECORD_TTL: u32 = 30;
/// How long, in seconds, a "there is none" may be kept (RFC 2308 section 4): a guest that asks a moment too early soon
/// asks again.
pub const NEGATIVE_TTL: u32 = 3;

/// What is asked, in class IN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question<'a> {
    pub name: &'a Name,
    pub record_type: RecordType,
}

/// What a guest of the zone's network gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Authoritative. Owner names are spelt as the question was.
    Records(Vec<Record>),
    /// Authoritative: the name exists, not with this type. With the SOA that lets it be cached (RFC 2308), where a zone
    /// of ours holds the name.
    NoData(Option<Box<Record>>),
    /// Authoritative: no such name. The SOA as above.
    NxDomain(Option<Box<Record>>),
    /// Ours to say nothing about: an upstream resolver's.
    Forward,
}

impl Zone {
    pub fn answer(&self, question: &Question<'_>) -> Answer {
        let name = question.name;
        if self.apex.zone_of(name) {
            return self.answer_own(question);
        }
        if let Some(reverse) = ReverseName::parse(name)
            && let Some(answer) = self.answer_reverse(question, &reverse)
        {
            return answer;
        }
        match special::classify(name) {
            Some(Special::Localhost) => {
                let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                addresses_or(question, &loopback, || Answer::NoData(None))
            }
            Some(Special::Nothing) => Answer::NxDomain(None),
            Some(Special::Empty) => Answer::NoData(None),
            None if depth(name) == 1 => self.answer_bare(question),
            None => Answer::Forward,
        }
    }

    fn answer_own(&self, question: &Question<'_>) -> Answer {
        let mut labels = question.name.iter();
        match depth(question.name).saturating_sub(depth(&self.apex)) {
            0 => self.answer_apex(question, &self.apex),
            1 => match labels.next().and_then(|label| self.find(label)) {
                Some(addresses) => addresses_or(question, addresses, || Answer::NoData(Some(self.soa(&self.apex)))),
                None => Answer::NxDomain(Some(self.soa(&self.apex))),
            },
            _ => Answer::NxDomain(Some(self.soa(&self.apex))),
        }
    }

    /// `None` where the reverse name is not of this network.
    fn answer_reverse(&self, question: &Question<'_>, reverse: &ReverseName) -> Option<Answer> {
        let apex = self.reverse_apex(&reverse.block);
        let soa = || apex.as_ref().map(|apex| self.soa(apex));
        let Some(address) = reverse.address() else {
            let prefix = self.prefixes.iter().find(|prefix| prefix.contains(&reverse.block))?;
            return Some(match reverse.below {
                true => Answer::NxDomain(soa()),
                false if reverse.block.prefix_len() == apex_len(prefix) => self.answer_apex(question, apex.as_ref()?),
                // Between the apex and the addresses: whether any stands below is not worth finding out, and to say
                // "no such name" would deny them all (RFC 8020).
                false => Answer::NoData(soa()),
            });
        };
        let Some(label) = self.label_of(address) else {
            return apex.is_some().then(|| Answer::NxDomain(soa()));
        };
        Some(if reverse.below {
            Answer::NxDomain(soa())
        } else if matches!(question.record_type, RecordType::PTR | RecordType::ANY) {
            let target = self.apex.prepend_label(label.as_str()).expect("a domain leaves room for a label");
            records(question, [RData::PTR(PTR(target))])
        } else {
            Answer::NoData(soa())
        })
    }

    /// A name without a dot. Guests' names answer, as with dnsmasq; others are typing errors or leave the site's search
    /// list, and no upstream's concern. What validators ask of top-level domains does pass.
    fn answer_bare(&self, question: &Question<'_>) -> Answer {
        match question.name.iter().next().and_then(|label| self.find(label)) {
            Some(addresses) => addresses_or(question, addresses, || Answer::NoData(None)),
            None => match question.record_type {
                RecordType::DS | RecordType::DNSKEY | RecordType::NS | RecordType::SOA => Answer::Forward,
                _ => Answer::NxDomain(None),
            },
        }
    }

    fn answer_apex(&self, question: &Question<'_>, apex: &Name) -> Answer {
        match question.record_type {
            RecordType::SOA | RecordType::ANY => records(question, [self.soa_data()]),
            RecordType::NS => records(question, [RData::NS(NS(self.server.clone()))]),
            _ => Answer::NoData(Some(self.soa(apex))),
        }
    }

    fn find(&self, label: &[u8]) -> Option<&[IpAddr]> {
        let mut lower = [0u8; 63];
        let lower = lower.get_mut(..label.len())?;
        lower.copy_from_slice(label);
        lower.make_ascii_lowercase();
        self.addresses(std::str::from_utf8(lower).ok()?)
    }

    fn soa(&self, apex: &Name) -> Box<Record> {
        Box::new(Record::from_rdata(apex.clone(), NEGATIVE_TTL, self.soa_data()))
    }

    fn soa_data(&self) -> RData {
        let (server, hostmaster) = (self.server.clone(), self.hostmaster.clone());
        RData::SOA(SOA::new(server, hostmaster, self.serial, 3600, 600, 86_400, NEGATIVE_TTL))
    }
}

/// The addresses of the family that is asked for. ANY gets one family, not all there is (RFC 8482 section 4.1).
fn addresses_or(question: &Question<'_>, addresses: &[IpAddr], no_data: impl FnOnce() -> Answer) -> Answer {
    let of = |v4: bool| addresses.iter().filter(move |a| a.is_ipv4() == v4).map(|&a| RData::from(a));
    let answer = match question.record_type {
        RecordType::A => records(question, of(true)),
        RecordType::AAAA => records(question, of(false)),
        RecordType::ANY => records(question, of(addresses.iter().any(IpAddr::is_ipv4))),
        _ => return no_data(),
    };
    if answer == Answer::Records(Vec::new()) { no_data() } else { answer }
}

fn records(question: &Question<'_>, data: impl IntoIterator<Item = RData>) -> Answer {
    Answer::Records(data.into_iter().map(|data| Record::from_rdata(question.name.clone(), RECORD_TTL, data)).collect())
}

/// Labels in a name; `Name::num_labels` leaves out a leading `*`, which is a label like any other in a question.
fn depth(name: &Name) -> usize {
    name.iter().count()
}

#[cfg(test)]
mod tests;
