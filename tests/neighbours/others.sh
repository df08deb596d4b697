#!/bin/bash
# others.sh: a table that drops what it does not know and has no place for others' entries: status says which, and the way out.
. "$(dirname "$0")/lib.sh"
install_vmfabric && start_bus && start_vmfabricd || finish
need "the internet" internet_host
need "the guests" guests
guests_work "alone"
site() {
  nft add table inet site && nft add chain inet site onward '{ type filter hook forward priority 10; policy drop; }' &&
    nft add rule inet site onward ct state established,related accept
}
# the rules that status tells, one a line
told() {
  vmfabric --json status | tr -d '\\"' | grep -o 'nft insert rule inet site onward [io]ifname vmf-nat accept' | sort -u
}
follow() { while read -r rule; do $rule || return; done < <(told); }

check "an administrator's table" site
check "guests are cut off" not opens web 203.0.113.2 7000
check "status says by which table" eventually problem_says 'inet site'
check "and which two rules to add" eval '[ "$(told | wc -l)" = 2 ]'
check "they are added" follow
check "the problem is gone" eventually not problem_says 'inet site'
guests_work "then"
finish
