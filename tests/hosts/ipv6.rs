//! IPv6 end to end, with the daemon as a whole.

use super::{private_host, uml_host};

#[test]
#[ignore = "needs root: it makes namespaces and runs vmfabricd and DHCPv6 clients in them"]
fn guests_have_ipv6_and_the_host_keeps_its_own() {
    private_host(300, "ipv6/ipv6.sh", &[]);
}

#[test]
#[ignore = "needs root: it runs vmfabricd and DHCPv6 clients on a User Mode Linux host"]
fn guests_have_ipv6_where_bridges_deny_by_default() {
    uml_host(400, "ipv6/ipv6.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces and runs vmfabricd and systemd-networkd in them"]
fn a_router_with_networkd_is_delegated_its_prefix() {
    private_host(400, "ipv6/networkd.sh", &[]);
}
