//! Other packet filters on the same host, for real: Docker's rules, firewalld, ufw.

mod common;

use common::private_host;

#[test]
#[ignore = "needs root: it makes namespaces, and loads Docker's rules in them"]
fn docker_by_nftables() {
    private_host(500, "neighbours/docker.sh", &["nft"]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and loads Docker's rules in them"]
fn docker_by_legacy_iptables() {
    private_host(500, "neighbours/docker.sh", &["legacy"]);
}
