//! Other packet filters on the same host, for real: Docker's rules, firewalld, ufw.

use super::private_host;

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

#[test]
#[ignore = "needs root: it makes namespaces, and runs firewalld in them"]
fn firewalld() {
    private_host(500, "neighbours/firewalld.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and enables ufw in them"]
fn ufw() {
    private_host(500, "neighbours/ufw.sh", &[]);
}

#[test]
#[ignore = "needs root: it makes namespaces, and loads nftables rules in them"]
fn a_table_that_lets_nobody_in_is_named() {
    private_host(500, "neighbours/others.sh", &[]);
}
