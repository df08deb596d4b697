//! Why traffic passes or does not: `Explain` and `Trace` of the Manager.

use super::{Dictionary, Error, value};
use crate::{
    backend::LinkCounters,
    policy::{self, Policy, TraceError},
    reconciler::{Subject, View},
};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use zbus::Variant;

/// An `a{sv}` as it goes to the bus. What is absent has no key.
pub type Answer = HashMap<String, Variant<'static>>;

pub fn explain(view: &View, name: &str) -> Result<Answer, Error> {
    let port = view.intent.find_port(name)?;
    let policy = Policy::new(&view.intent, &view.host.host_services);
    let mut explained = policy::explain(&policy, port.id)?;
    let subjects = [Subject::Port(port.id), Subject::Network(port.network), Subject::Host];
    let problems = subjects.into_iter().flat_map(|subject| view.problems_of(subject));
    explained.problems = problems.map(|problem| problem.message.clone()).collect();
    if !view.capabilities.nft_bridge_meta {
        explained.problems.push(
            "this kernel cannot speak of all ports of a bridge (CONFIG_NFT_BRIDGE_META): nothing bounds what ports send \
             before their filters are in place; boot a kernel that can"
                .into(),
        );
    }
    if explained.groups.is_some() && explained.stateful && !view.capabilities.bridge_conntrack {
        explained.problems.push(
            "this kernel cannot track connections on bridges (CONFIG_NF_CONNTRACK_BRIDGE), which its stateful groups need: \
             guests that ask for this port are not started; load nf_conntrack_bridge, or boot a kernel that has it"
                .into(),
        );
    }
    answer(&explained)
}

pub fn trace(view: &View, request: &Dictionary) -> Result<Answer, Error> {
    let request: policy::Request = value::parse(request)?;
    let policy = Policy::new(&view.intent, &view.host.host_services);
    let traced = policy::trace(&policy, &request).map_err(|error| match error {
        TraceError::Intent(error) => error.into(),
        TraceError::Invalid(why) => Error::InvalidArgument(why),
    })?;
    answer(&traced)
}

/// What a running guest's port carried, and what was dropped there by reason, in packets.
pub fn statistics(counters: &LinkCounters) -> Result<Answer, Error> {
    let drops: BTreeMap<&str, u64> = counters.drops.iter().map(|(reason, count)| (*reason, count.packets)).collect();
    answer(&serde_json::json!({
        "sent_bytes": counters.came_in.bytes,
        "sent_packets": counters.came_in.packets,
        "received_bytes": counters.went_out.bytes,
        "received_packets": counters.went_out.packets,
        "unread_packets": counters.lost_out,
        "drops": drops,
    }))
}

pub(super) fn answer(value: &impl Serialize) -> Result<Answer, Error> {
    let written = serde_json::to_value(value).ok().and_then(dictionary);
    written.ok_or_else(|| Error::Failed("the answer cannot be written".into()))
}

/// Texts, flags, lists of texts, lists of dictionaries. Nothing stands for `null`.
fn variant(value: Value) -> Option<Variant<'static>> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(flag) => flag.into(),
        Value::Number(number) => number.as_u64()?.into(),
        Value::String(text) => text.into(),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let dictionaries: Vec<Answer> = items.into_iter().filter_map(dictionary).collect();
            dictionaries.into()
        }
        Value::Array(items) => {
            let texts: Vec<String> = items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect();
            texts.into()
        }
        object @ Value::Object(_) => dictionary(object)?.into(),
    })
}

fn dictionary(value: Value) -> Option<Answer> {
    let Value::Object(fields) = value else { return None };
    Some(fields.into_iter().filter_map(|(key, value)| Some((key, variant(value)?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(from: &'static str, to: &'static str) -> Dictionary {
        let owned = |text: &'static str| Variant::from(text).try_into().expect("no file descriptors");
        Dictionary::from([("from".into(), owned(from)), ("to".into(), owned(to))])
    }

    #[test]
    fn a_port_that_is_not_there_is_not_found_at_either_end() {
        let view = View::default();
        for (from, to) in [("nobody", "host"), ("host", "nobody")] {
            let refused = trace(&view, &request(from, to));
            assert!(matches!(refused, Err(Error::NotFound(_))), "{from} {to}: {refused:?}");
        }
        let refused = trace(&view, &request("host", "host"));
        assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{refused:?}");
    }
}
