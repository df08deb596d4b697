use super::{Bench, parse, within};
use crate::dbus::Access;
use std::{
    collections::{BTreeSet, HashMap},
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
    /// On the bench's bus, with nobody trusted; it says yes until it is told otherwise. It is there while the connection is.
    async fn decides() -> (Bench, Self, Connection) {
        let bench = Bench::with(Access::new(None)).await;
        let (polkit, bus) = (Self::default(), bench.bus.connect().await);
        let path = "/org/freedesktop/PolicyKit1/Authority";
        bus.object_server().at(path, polkit.clone()).await.expect("served");
        bus.request_name("org.freedesktop.PolicyKit1").await.expect("the name is free");
        polkit.answers(true, false);
        (bench, polkit, bus)
    }

    fn answers(&self, authorized: bool, challenge: bool) {
        *self.answer.lock().expect("not poisoned") = (authorized, challenge);
    }

    fn forget(&self) {
        self.asked.lock().expect("not poisoned").clear();
    }

    fn asked(&self) -> Vec<(String, String, bool)> {
        self.asked.lock().expect("not poisoned").clone()
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

/// What only reads, whatever its arguments: everything else asks polkit. (`Apply` reads where it is asked for a dry run.)
fn only_reads(method: &str) -> bool {
    let reads = ["Plan", "Export", "Explain", "Trace", "ListLeases", "GetStatistics"];
    let gets = ["GetNetwork", "GetSubnet", "GetPort", "GetSecurityGroup", "GetAddressGroup"];
    reads.contains(&method) || gets.contains(&method)
}

/// The action that a method has by its name.
fn action_of(interface: &str, method: &str) -> String {
    let plural = |kind: &str| {
        let dashed: String = kind.char_indices().fold(String::new(), |text, (at, letter)| match letter {
            'A'..='Z' if at > 0 => text + "-" + &letter.to_ascii_lowercase().to_string(),
            _ => text + &letter.to_ascii_lowercase().to_string(),
        });
        dashed + "s"
    };
    let action = match (interface, method) {
        ("Manager", "ImportLibvirt") => "import-networks".to_owned(),
        ("Manager", "Apply") => "apply".to_owned(),
        ("Manager", "SetLogLevel") => "set-log-level".to_owned(),
        ("Manager", create) => format!("create-{}", plural(create.strip_prefix("Create").expect("known here"))),
        (kind, "Delete") => format!("delete-{}", plural(kind)),
        (kind, _) => format!("change-{}", plural(kind)),
    };
    format!("org.vmfabric1.{action}")
}

/// Calls a method with empty arguments; the name of the error that comes.
async fn call_empty(bus: &Connection, path: &str, interface: &str, method: &str, arguments: &str) -> Option<String> {
    let dictionary = HashMap::<&str, Variant<'_>>::new;
    macro_rules! call {
        ($body:expr) => {
            within(bus.call_method(Some("org.vmfabric1"), path, Some(interface), method, $body)).await
        };
    }
    let answer = match arguments {
        "" => call!(&()),
        "s" => call!(&("",)),
        "sss" => call!(&("", "", "")),
        "as" => call!(&(Vec::<&str>::new(),)),
        "a{sv}" => call!(&(dictionary(),)),
        "sa{sv}" => call!(&("", dictionary())),
        other => panic!("{interface}.{method} takes {other}: say here what to call it with"),
    };
    match answer {
        Ok(_) => None,
        Err(zbus::Error::MethodError(name, ..)) => Some(name.to_string()),
        Err(error) => panic!("{interface}.{method}: {error}"),
    }
}

/// Every method of `dbus/*.xml`, so that none can be forgotten.
#[tokio::test]
async fn every_method_that_changes_something_asks_polkit() {
    let (bench, polkit, _authority) = Polkit::decides().await;
    bench.populate().await;
    polkit.answers(false, false);
    let before = bench.core.view().intent.clone();

    let policy = parse(include_str!("../../../dbus/org.vmfabric1.policy"));
    let actions = policy.descendants().filter(|node| node.has_tag_name("action"));
    let shipped: BTreeSet<String> = actions.filter_map(|node| node.attribute("id")).map(str::to_owned).collect();
    let mut asked = BTreeSet::new();
    for (interface, path, file) in bench.described().await {
        for method in parse(file).descendants().filter(|node| node.has_tag_name("method")) {
            let name = method.attribute("name").expect("a name");
            let inward = method.children().filter(|node| node.attribute("direction") == Some("in"));
            let arguments: String = inward.filter_map(|node| node.attribute("type")).collect();
            polkit.forget();
            let error = call_empty(&bench.client, &path, interface, name, &arguments).await;
            if only_reads(name) {
                assert_ne!(error.as_deref(), Some("org.vmfabric1.Error.NotAuthorized"), "{interface}.{name}");
                assert_eq!(polkit.asked(), [], "{interface}.{name}");
                continue;
            }
            assert_eq!(error.as_deref(), Some("org.vmfabric1.Error.NotAuthorized"), "{interface}.{name}");
            let kind = interface.rsplit('.').next().expect("a name");
            let action = action_of(kind, name);
            assert_eq!(polkit.asked(), [("system-bus-name".to_owned(), action.clone(), false)], "{interface}.{name}");
            asked.insert(action);
        }
    }
    assert_eq!(asked, shipped, "the actions of dbus/org.vmfabric1.policy");
    assert_eq!(bench.core.view().intent, before, "something refused was done");
    // A dry run changes nothing.
    let manager = bench.manager().await;
    manager.apply("{}", &[("dry_run", true.into())].into()).await.expect("anybody may see what would change");
}

#[tokio::test]
async fn polkit_decides() {
    let (bench, polkit, _authority) = Polkit::decides().await;

    polkit.answers(false, false);
    let text = refused!(bench.create("subnet", &[("network", "blue".into())]).await, NotAuthorized);
    assert!(text.contains("org.vmfabric1.create-subnets"), "{text}");
    // Our own clients let polkit ask for a password.
    assert_eq!(polkit.asked(), [("system-bus-name".to_owned(), "org.vmfabric1.create-subnets".to_owned(), true)]);
    polkit.answers(true, false);
    bench.populate().await;

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
    polkit.forget();
    let Err(zbus::Error::MethodError(name, Some(text), _)) = within(call).await else { panic!("not refused") };
    assert_eq!(name.as_str(), "org.vmfabric1.Error.NotAuthorized");
    assert!(text.contains("password"), "{text}");
    assert!(polkit.asked().iter().all(|(.., interactive)| !interactive), "{:?}", polkit.asked());
    assert_eq!(bench.core.view().intent.networks().len(), 1);
}

/// polkitd itself, with the actions that are shipped, in a mount namespace of its own.
struct Polkitd(Child);

impl Polkitd {
    /// Its rule is the one that `docs/security-model.md` shows, for the group that `nobody` is in.
    fn start(address: &str, rules: &Path) -> Self {
        let guide = include_str!("../../../docs/security-model.md");
        let rule = guide.split("```javascript\n").nth(1).and_then(|text| text.split("```").next()).expect("a rule");
        let rule = rule.replace("operators", "nogroup");
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
