#!/bin/bash
# hotplug.sh: NICs that are plugged into a running guest and pulled out of it.
. "$(dirname "$0")/checks.sh"
stage
bridge=$(vmfabric --json network show nat | sed -n 's/.*"bridge": "\(.*\)".*/\1/p')
gateway=192.168.123.1
define_guest web
GUEST_HOST=itself define_guest db 52:54:00:40:00:01 network=nat
need "a guest without a NIC starts" virsh start web
need "another, with one, starts" virsh start db
need "it has a lease" has_lease db
db=$(guest_ip db)
wait_for $LONG guest_run web true # it hears of NICs only from here on

plug() { nic_xml "$1" "$2" >"$RIG_LOGS/nic.xml" && virsh attach-device web "$RIG_LOGS/nic.xml" --live; }
unplug() { nic_xml "$1" "$2" >"$RIG_LOGS/nic.xml" && virsh detach-device web "$RIG_LOGS/nic.xml" --live; }
leased_again() { # COUNT
  wait_for $LONG eval '[ "$(grep -c GUEST-LEASE "$RIG_LOGS/web.log")" -ge '"$1"' ]' || { tail "$RIG_LOGS/web.log"; return 1; }
}
one=52:54:00:40:00:02 two=52:54:00:40:00:03
round=0
for source in network=nat bridge="$bridge"; do
  round=$((round + 1))
  check "$source: a NIC is plugged" plug $one "$source"
  check "$source: its port is active" eventually port_is $one status active
  check "$source: it has a lease" leased_again $((2 * round - 1))
  address=$(port $one addresses)
  check "$source: it reaches the gateway" pings web $gateway
  check "$source: and the other guest" pings web "$db"
  check "$source: which reaches it at $address" pings db "$address"
  check "$source: a second NIC is plugged" plug $two "$source"
  check "$source: it has a lease" leased_again $((2 * round))
  check "$source: both are unplugged" eval "unplug $one '$source' && unplug $two '$source'"
  check "$source: their ports are gone" eventually eval "no_port $one && no_port $two"
  check "$source: the address and its lease are free" eventually eval '! vmfabric lease list | grep -w "$address"'
  check "$source: nothing but db's tap is bound" eventually eval '[ "$(ip link | grep -c "alias vmfabric:port/")" = 1 ]'
  check "$source: the plan is empty" eventually plan_is_empty
  wait_for $LONG guest_run web '! ls -d /sys/class/net/eth*'
done
check "a port made beforehand, for a NIC that comes" vmfabric port create nat --mac $one --address 192.168.123.77 --name mine --dns-name asked
check "the NIC is plugged" plug $one network=nat
check "it has that port" eventually port_is mine status active
check "and its address" eventually guest_run web "ip addr show | grep -w 192.168.123.77"
resolves() { guest_run "$1" "nslookup $2 $gateway" | tee /dev/stderr | grep -w -- "$3"; } # GUEST QUESTION ANSWER
check "the port's DNS name resolves" eventually resolves db asked.nat.internal 192.168.123.77
check "and its address says that name" eventually resolves db 192.168.123.77 asked.nat.internal
check "a guest resolves by its libvirt name, whatever it calls itself" eventually resolves web db.nat.internal "$db"
check "and by what it calls itself" eventually resolves web itself.nat.internal "$db"
check "it is unplugged" unplug $one network=nat
check "the port stays, and is down" eventually port_is mine status down
check "a NIC is plugged, with the daemon restarted right behind it" eval "plug $two network=nat; stop_vmfabricd KILL; start_vmfabricd"
check "its port is active" eventually port_is $two status active
check "a NIC's link goes down and up" eval "virsh domif-setlink web $two down && virsh domif-setlink web $two up"
check "its port is active" eventually port_is $two status active
check "the guest stops" virsh destroy web
check "nothing but db's tap is bound" eventually eval '[ "$(ip link | grep -c "alias vmfabric:port/")" = 1 ]'
check "the plugged NIC's port, which is not in the guest's definition, is gone" eventually no_port $two
check "the plan is empty" eventually plan_is_empty
finish
