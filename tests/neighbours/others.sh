#!/bin/bash
# others.sh: a table that drops what it does not know and has no place for others' entries: status says which, and the way out.
. "$(dirname "$0")/lib.sh"
install_vmfabric && start_bus && start_vmfabricd || finish
need "the internet" internet_host
need "the guests" guests
guests_work "alone"
check "an administrator's table" eval "nft add table inet site &&
  nft add chain inet site fwd '{ type filter hook forward priority 10; policy drop; }' &&
  nft add rule inet site fwd ct state established,related accept"
check "guests are cut off" not opens web 203.0.113.2 7000
check "status says by which table" eventually problem_says 'table inet site, chain fwd'
check "and which rules to add" eval 'vmfabric --json status | grep -o "nft insert rule inet site fwd [io]ifname .\{,4\}vmf-nat.\{,4\} accept" |
  tr -d "\\\\" >"$RIG_LOGS/rules" && [ "$(wc -l <"$RIG_LOGS/rules")" = 2 ]'
check "they are added" eval 'while read -r rule; do $rule || exit; done < <(sed s/\"//g "$RIG_LOGS/rules")'
check "the problem is gone" eventually not problem_says 'table inet site'
guests_work "then"
finish
