//! DNS end to end: the daemon, guests in namespaces with real clients, and an upstream that misbehaves.

use super::private_host;

#[test]
#[ignore = "needs root: it makes namespaces, and runs the daemon and guests in them"]
fn guests_are_served() {
    private_host(400, "dns/serve.sh", &[]);
}
