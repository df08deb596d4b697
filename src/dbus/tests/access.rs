use super::{Bench, within};
use crate::dbus::Access;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use zbus::{Connection, OwnedVariant, Variant, interface};

/// polkit's place on the bus, with an answer that the test decides.
#[derive(Debug, Clone, Default)]
struct Polkit {
    /// (authorized, challenge).
    answer: Arc<Mutex<(bool, bool)>>,
    /// (subject kind, action, interactive).
    asked: Arc<Mutex<Vec<(String, String, bool)>>>,
}

#[interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl Polkit {
    fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedVariant>),
        action: String,
        _details: HashMap<String, String>,
        flags: u32,
        _cancellation: String,
    ) -> ((bool, bool, HashMap<String, String>),) {
        self.asked.lock().expect("not poisoned").push((subject.0, action, flags & 1 == 1));
        let (authorized, challenge) = *self.answer.lock().expect("not poisoned");
        ((authorized, challenge, HashMap::new()),)
    }
}

impl Polkit {
    async fn serve(&self, bus: &Connection) {
        let path = "/org/freedesktop/PolicyKit1/Authority";
        bus.object_server().at(path, self.clone()).await.expect("served");
        bus.request_name("org.freedesktop.PolicyKit1").await.expect("the name is free");
    }

    fn answers(&self, authorized: bool, challenge: bool) {
        *self.answer.lock().expect("not poisoned") = (authorized, challenge);
    }

    fn last_asked(&self) -> (String, String, bool) {
        self.asked.lock().expect("not poisoned").last().cloned().expect("asked")
    }
}

#[tokio::test]
async fn without_polkit_only_root_may() {
    let bench = Bench::with(Access::new(None)).await;
    let text = refused!(bench.create("network", &[("name", "blue".into())]).await, NotAuthorized);
    assert!(text.contains("polkit") && text.contains("root"), "{text}");
    assert_eq!(bench.core.view().intent.networks().len(), 0);
    // Reading needs nobody's leave.
    bench.manager().await.plan().await.expect("everybody may ask for the plan");
    bench.manager().await.list_leases("").await.expect("and for the leases");
}

#[tokio::test]
async fn polkit_decides() {
    let bench = Bench::with(Access::new(None)).await;
    let polkit = Polkit::default();
    let authority = bench.bus.connect().await;
    polkit.serve(&authority).await;

    polkit.answers(true, false);
    bench.populate().await;
    let asked = |action: &str| ("system-bus-name".to_owned(), format!("org.vmfabric1.{action}"), true);
    assert_eq!(polkit.last_asked(), asked("manage-ports"));

    polkit.answers(false, false);
    let text = refused!(bench.create("subnet", &[("network", "blue".into())]).await, NotAuthorized);
    assert!(text.contains("org.vmfabric1.manage-subnets"), "{text}");
    let manager = bench.manager().await;
    refused!(manager.set_log_level("debug").await, NotAuthorized);
    assert_eq!(polkit.last_asked(), asked("set-log-level"));
    let network = manager.get_network("blue").await.expect("reading is free");
    let network = crate::dbus::proxy::ResourceProxy::new(&bench.client, crate::dbus::Kind::Network, network).await;
    let network = network.expect("proxy");
    refused!(network.delete().await, NotAuthorized);
    refused!(network.update(&HashMap::from([("mtu", 1400u16.into())])).await, NotAuthorized);
    assert_eq!(polkit.last_asked(), asked("manage-networks"));

    // A password would help, and the caller lets nobody ask for it.
    polkit.answers(false, true);
    let body = (HashMap::from([("name", Variant::from("red"))]),);
    let call = bench.client.call_method(
        Some("org.vmfabric1"),
        "/org/vmfabric1",
        Some("org.vmfabric1.Manager"),
        "CreateNetwork",
        &body,
    );
    let Err(zbus::Error::MethodError(name, Some(text), _)) = within(call).await else { panic!("not refused") };
    assert_eq!(name.as_str(), "org.vmfabric1.Error.NotAuthorized");
    assert!(text.contains("password"), "{text}");
    assert!(!polkit.last_asked().2);
    assert_eq!(bench.core.view().intent.networks().len(), 1);
}
