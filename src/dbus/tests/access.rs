use super::{Bench, within};
use crate::dbus::{Access, Kind, proxy::ResourceProxy};
use std::{
    collections::HashMap,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
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
    assert_eq!(polkit.last_asked(), asked("manage-security-groups"));

    polkit.answers(false, false);
    let text = refused!(bench.create("subnet", &[("network", "blue".into())]).await, NotAuthorized);
    assert!(text.contains("org.vmfabric1.manage-subnets"), "{text}");
    let manager = bench.manager().await;
    for kind in ["security_group", "address_group"] {
        let text = refused!(bench.create(kind, &[("name", "x".into())]).await, NotAuthorized);
        assert!(text.contains("org.vmfabric1.manage-security-groups"), "{text}");
    }
    let path = manager.get_security_group("web").await.expect("there");
    let group = ResourceProxy::new(&bench.client, Kind::SecurityGroup, path).await.expect("proxy");
    refused!(group.add_rule(&[("rule", "ingress any".into())].into()).await, NotAuthorized);
    refused!(group.remove_rule("egress any").await, NotAuthorized);
    refused!(group.update(&[("description", "x".into())].into()).await, NotAuthorized);
    refused!(group.delete().await, NotAuthorized);
    let path = manager.get_address_group("dc").await.expect("there");
    let group = ResourceProxy::new(&bench.client, Kind::AddressGroup, path).await.expect("proxy");
    refused!(group.add_addresses(&["192.0.2.1".into()]).await, NotAuthorized);
    refused!(group.remove_addresses(&["192.0.2.7".into()]).await, NotAuthorized);
    refused!(group.delete().await, NotAuthorized);
    refused!(manager.import_libvirt(&HashMap::new()).await, NotAuthorized);
    assert_eq!(polkit.last_asked(), asked("import-networks"));
    refused!(manager.apply("{}", &HashMap::new()).await, NotAuthorized);
    assert_eq!(polkit.last_asked(), asked("apply"));
    manager.apply("{}", &[("dry_run", true.into())].into()).await.expect("anybody may see what would change");
    manager.export().await.expect("and what is there");
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

/// polkitd itself, with the actions that are shipped, in a mount namespace of its own.
struct Polkitd(Child);

impl Polkitd {
    /// Its rules let `nobody` manage ports.
    fn start(address: &str, rules: &Path) -> Self {
        let rule = r#"polkit.addRule(function(action, subject) {
            if (action.id == "org.vmfabric1.manage-ports" && subject.user == "nobody") return polkit.Result.YES;
        });"#;
        std::fs::write(rules.join("50-test.rules"), rule).expect("the rule is written");
        std::fs::set_permissions(rules, std::fs::Permissions::from_mode(0o755)).expect("the directory is ours");
        let script = r#"set -e
            mount --bind "$ACTIONS" /usr/share/polkit-1/actions
            mount --bind "$RULES" /usr/share/polkit-1/rules.d
            exec /usr/lib/polkit-1/polkitd --no-debug"#;
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .env("ACTIONS", concat!(env!("CARGO_MANIFEST_DIR"), "/dbus"))
            .env("RULES", rules)
            .env("DBUS_SYSTEM_BUS_ADDRESS", address)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.expect("unshare runs (Debian package util-linux)"))
    }
}

impl Drop for Polkitd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root: runs polkitd and a caller with another user's id"]
async fn the_shipped_policies_let_in_whom_they_should() {
    let bench = Bench::on(super::bus::Bus::start_strict(), Access::default()).await;
    let rules = tempfile::tempdir().expect("a directory");
    let _polkitd = Polkitd::start(&bench.bus.address, rules.path());
    bench.bus.owned("org.freedesktop.PolicyKit1").await;
    // Root needs nobody's leave.
    bench.populate().await;
    let delete_as_nobody = |path: &str, interface: &str| {
        let output = Command::new("setpriv")
            .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "dbus-send", "--print-reply"])
            .args([&format!("--bus={}", bench.bus.address), "--dest=org.vmfabric1", path])
            .arg(format!("{interface}.Delete"))
            .output()
            .expect("setpriv and dbus-send run (Debian packages util-linux and dbus-bin)");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let manager = bench.manager().await;
    let network = manager.get_network("blue").await.expect("there");
    let (done, text) = delete_as_nobody(&network, "org.vmfabric1.Network");
    assert!(!done && text.contains("org.vmfabric1.Error.NotAuthorized") && text.contains("password"), "{text}");
    let (done, text) = delete_as_nobody(&network, "org.vmfabric1.Nonsense");
    assert!(!done && text.contains("org.freedesktop.DBus.Error.AccessDenied"), "{text}");
    let port = manager.get_port("web").await.expect("there");
    let (done, text) = delete_as_nobody(&port, "org.vmfabric1.Port");
    assert!(done, "{text}");
    assert_eq!(bench.core.view().intent.ports().len(), 0);
}
