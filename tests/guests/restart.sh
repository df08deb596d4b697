#!/bin/bash
# restart.sh: the daemon stops, starts, is killed and starts again, and no guest notices.
. "$(dirname "$0")/checks.sh"
stage
internet_host
macs=(52:54:00:60:00:01 52:54:00:60:00:02)
vmfabric network create short && vmfabric subnet create short 10.66.0.0/24 --forward nat --lease-time 60 || finish
wait_for $LONG network_active short
define_guest web ${macs[0]} network=nat
define_guest db ${macs[1]} network=nat
define_guest renews 52:54:00:60:00:03 network=short
for guest in web db renews; do need "$guest starts" virsh start $guest; done
for guest in web db renews; do need "$guest has a lease" has_lease $guest; done
db=$(guest_ip db)
check "web reaches db" pings web "$db"
check "web reaches the host outside" pings web 203.0.113.2

# ten_more: ten more answers came to each ping
ten_more() {
  local count='wc -l </tmp/to-guest; wc -l </tmp/outside' before now
  before=($(guest_run web "$count"))
  wait_for $LONG eval 'now=($(guest_run web "$count")); [ "${now[0]}" -ge $((before[0] + 10)) ] && [ "${now[1]}" -ge $((before[1] + 10)) ]'
}
all_active() { port_is "${macs[0]}" status active && port_is "${macs[1]}" status active; }
leases() { vmfabric --json lease list | grep -v expires | sort; }
leases >"$RIG_LOGS/leases.before"
links() { ip -o addr show | sed 's/valid_lft.*//'; nft list ruleset | sed '/limit rate over 1000.second burst/d; s/counter packets.*//'; ip -o link; }
links >"$RIG_LOGS/links.before"
guest_run web "(ping -i 0.1 -W 2 $db >/tmp/to-guest 2>&1 & echo \$! >/tmp/p1; ping -i 0.1 -W 2 203.0.113.2 >/tmp/outside 2>&1 & echo \$! >/tmp/p2) </dev/null" ||
  finish
unchanged() { links >"$RIG_LOGS/links.now"; diff "$RIG_LOGS/links.before" "$RIG_LOGS/links.now"; }
leases_kept() { leases >"$RIG_LOGS/leases.now"; diff "$RIG_LOGS/leases.before" "$RIG_LOGS/leases.now"; }
lines=$(wc -l <"$RIG_LOGS/vmfabricd.log")
for signal in TERM KILL TERM KILL; do
  check "the daemon ends by SIG$signal" stop_vmfabricd $signal
  check "the host is unchanged" unchanged
  ten_more
  check "it starts" start_vmfabricd
  check "its first plan is empty: it changed nothing" plan_is_empty
  check "it made no change" eval '! tail -n +$((lines + 1)) "$RIG_LOGS/vmfabricd.log" | grep "brought in line"'
  check "leases are kept" leases_kept
  check "ports are active" eventually all_active
  check "libvirt is connected" eventually libvirt_is connected
  check "the host is unchanged" unchanged
  ten_more
  lines=$(wc -l <"$RIG_LOGS/vmfabricd.log")
done
guest_run web 'kill -INT $(cat /tmp/p1) $(cat /tmp/p2); sleep 1'
no_loss() { # FILE
  guest_run web "tail -n 3 /tmp/$1" | tee "$RIG_LOGS/$1.txt"
  grep -q ' 0% packet loss' "$RIG_LOGS/$1.txt" && [ "$(awk '/transmitted/ { print $1 }' "$RIG_LOGS/$1.txt")" -gt 80 ]
}
check "guest to guest, 10 a second: no packet was lost" no_loss to-guest
check "guest to outside, 10 a second: no packet was lost" no_loss outside
sed -n 's/.*transmitted/       &/p' "$RIG_LOGS"/{to-guest,outside}.txt
renewals() { grep -ac 'GUEST-LEASE.*kind=renew' "$RIG_LOGS/renews.log"; }
now=$(renewals)
check "a lease is renewed" wait_for 90 eval '[ "$(renewals)" -gt "$now" ]'
check "a new guest starts" eval 'define_guest new 52:54:00:60:00:04 network=nat && virsh start new'
check "and has a lease" has_lease new
check "names resolve" guest_run web 'ping -c 1 -W 2 new.nat.internal'
check "the plan is empty" eventually plan_is_empty
finish
