use super::{Bench, within};
use crate::{
    intent::PortDraft,
    reconciler::{Attachment, Notice, Problem, Subject},
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use zbus::{MatchRule, MessageStream, OwnedVariant, message::Type};

/// The service's signals, as (member, path, body in JSON).
struct Signals(MessageStream);

impl Signals {
    async fn watch(bench: &Bench) -> Self {
        let rule = MatchRule::builder().msg_type(Type::Signal).sender("org.vmfabric1").build().expect("valid");
        Self(MessageStream::for_match_rule(rule, &bench.client, None).await.expect("the bus takes the rule"))
    }

    /// The next signal of a member about a path.
    async fn next(&mut self, member: &str, path: &str) -> Value {
        let found = async {
            loop {
                let message = self.0.next().await.expect("the bus is there").expect("well-formed");
                let header = message.header();
                if header.member().is_none_or(|m| m != member) {
                    continue;
                }
                let body = message.body();
                let body: zbus::Structure<'_> = body.deserialize().expect("a structure");
                let about = header.path().map(ToString::to_string);
                let body = crate::dbus::to_json(&OwnedVariant::try_from(zbus::Variant::from(body)).expect("plain"));
                let body = body.expect("JSON has all of it");
                if about.as_deref() == Some(path) || body[0] == path {
                    return body;
                }
            }
        };
        within(found).await
    }
}

#[tokio::test]
async fn objects_come_change_and_go() {
    let bench = Bench::start().await;
    let mut signals = Signals::watch(&bench).await;
    bench.populate().await;
    let port = bench.manager().await.get_port("web").await.expect("there");
    let added = signals.next("InterfacesAdded", &port).await;
    assert_eq!(added[1]["org.vmfabric1.Port"]["Name"], "web");
    assert_eq!(added[1]["org.vmfabric1.Port"]["Status"], "down");

    let id = bench.core.view().intent.find_port("web").expect("there").id;
    let tap = crate::net::IfName::new("vnet0").expect("valid");
    bench.core.view().attachments.insert(id, Attachment { tap, guest: None, verified: false });
    bench.core.tell(Notice::PortChanged(id));
    // Only what changed.
    let changed = signals.next("PropertiesChanged", &port).await;
    assert_eq!(changed, json!(["org.vmfabric1.Port", {"Status": "build", "Tap": "vnet0"}, []]));

    bench.core.view().attachments.get_mut(&id).expect("there").verified = true;
    bench.core.tell(Notice::PortChanged(id));
    let changed = signals.next("PropertiesChanged", &port).await;
    assert_eq!(changed[1], json!({"Status": "active"}));

    crate::dbus::proxy::ResourceProxy::new(&bench.client, crate::dbus::Kind::Port, port.clone())
        .await
        .expect("proxy")
        .delete()
        .await
        .expect("deleted");
    let removed = signals.next("InterfacesRemoved", &port).await;
    assert_eq!(removed[1], json!(["org.vmfabric1.Port"]));
}

#[tokio::test]
async fn problems_show_where_they_are() {
    let bench = Bench::start().await;
    bench.populate().await;
    let mut signals = Signals::watch(&bench).await;
    let subnet = bench.core.view().intent.find_subnet("blue").expect("there").id;
    let path = bench.manager().await.get_subnet("blue").await.expect("there");
    let problem = Problem::new(Subject::Subnet(subnet), "port 67 is taken; stop dnsmasq");
    bench.core.view().problems.push(problem);
    bench.core.tell(Notice::StatusChanged);
    let changed = signals.next("PropertiesChanged", &path).await;
    assert_eq!(changed[1], json!({"Status": "error", "Problems": ["port 67 is taken; stop dnsmasq"]}));
    let changed = signals.next("PropertiesChanged", "/org/vmfabric1").await;
    assert_eq!(changed[1]["Health"], "degraded");
    assert_eq!(changed[1]["Problems"], json!(["subnet blue: port 67 is taken; stop dnsmasq"]));

    bench.core.view().problems.clear();
    bench.core.tell(Notice::StatusChanged);
    assert_eq!(signals.next("PropertiesChanged", &path).await[1], json!({"Status": "active", "Problems": []}));
    assert_eq!(signals.next("PropertiesChanged", "/org/vmfabric1").await[1]["Health"], "ok");
}

#[tokio::test]
async fn a_flood_of_notices_loses_no_object() {
    let bench = Bench::start().await;
    bench.populate().await;
    // Far more than the channel holds, with no chance for the service to run in between.
    for _ in 0..200 {
        let draft: PortDraft = serde_json::from_value(json!({"network": "blue"})).expect("valid");
        bench.core.create_port(draft).expect("a free address");
    }
    let ports: Vec<_> = bench.core.view().intent.ports().map(|port| port.id).collect();
    assert_eq!(ports.len(), 201);
    let objects = zbus::fdo::ObjectManagerProxy::new(&bench.client, "org.vmfabric1", "/org/vmfabric1").await;
    let objects = objects.expect("proxy");
    within(async {
        loop {
            let exported = objects.get_managed_objects().await.expect("answered");
            if ports.iter().all(|id| exported.contains_key(&crate::dbus::Kind::Port.path(id.0))) {
                return;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
}
