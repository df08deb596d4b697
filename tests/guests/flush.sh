#!/bin/bash
# flush.sh: what somebody does to our nftables tables is noticed and put right at once; what others do to theirs is not ours.
. "$(dirname "$0")/checks.sh"
install_vmfabric && start_bus && start_vmfabricd || finish
whole() { cmp -s <(nft -s list table bridge vmfabric) "$RIG_LOGS/bridge" && cmp -s <(nft -s list table inet vmfabric) "$RIG_LOGS/inet"; }
# mended NFT-COMMAND...: the tables are as they were; says how long that took
mended() {
  local before since=$EPOCHREALTIME
  before=$(noticed)
  nft "$@" || return
  until [ "$(noticed)" -gt "$before" ] && whole; do
    awk "BEGIN { exit !($EPOCHREALTIME - $since > $LONG) }" && { nft list ruleset; return 1; }
  done
  awk "BEGIN { printf \"%.0f ms\n\", ($EPOCHREALTIME - $since) * 1000 }" | tee -a "$RIG_LOGS/times"
}
noticed() { grep -cE 'somebody (changed|deleted) nftables' "$RIG_LOGS/vmfabricd.log"; }

need "the plan is empty" eventually plan_is_empty
nft -s list table bridge vmfabric >"$RIG_LOGS/bridge" && nft -s list table inet vmfabric >"$RIG_LOGS/inet"
check "nft flush ruleset" mended flush ruleset
check "a table deleted" mended delete table bridge vmfabric
check "a chain emptied" mended flush chain bridge vmfabric antispoof
check "a rule put in front" mended insert rule bridge vmfabric postrouting accept
check "a rule put in front of what guards the host" mended insert rule inet vmfabric input accept
check "a chain of another's in our table" mended add chain bridge vmfabric other '{ type filter hook prerouting priority -1000; }'
check "an element taken away" mended delete element inet vmfabric gateways '{ "vmf-nat" }'
check "a set to sleep" mended add table bridge vmfabric '{ flags dormant; }'
check "the plan is empty again" eventually plan_is_empty
before=$(noticed)
nft add table inet other && nft add chain inet other c && nft delete table inet other
check "a change after what others do to theirs" mended flush chain bridge vmfabric antispoof
check "only ours was looked at" [ "$(noticed)" = $((before + 1)) ]
echo "put right after: $(paste -sd, "$RIG_LOGS/times")"
finish
