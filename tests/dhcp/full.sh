#!/bin/bash
# full.sh: the disk that the leases are on is full. Who has a lease keeps it, over DHCPv4 and DHCPv6; new ones are refused,
# with a word why, until there is room again, also after a restart. Guests are network namespaces, with dhclient. No libvirt.
. "$(dirname "$0")/../guests/checks.sh"
. "$(dirname "$0")/../guests/namespaces.sh"
mount -t tmpfs -o size=24m,mode=700 tmpfs /var/lib/vmfabric
install_vmfabric && start_bus && start_vmfabricd || finish

guest() { # NAME NUMBER
  : >"/run/rig/$1.told"
  attach "$1" "$2" vmf-lab && ip netns exec "$1" sysctl -qw net.ipv6.conf.eth0.accept_ra=0 && ip -n "$1" link set eth0 up &&
    wait_for 20 has_link_local "$1"
}
# client NAME FAMILY: dhclient, which stays; the shortest lease that it asks for is renewed after half of it
client() {
  echo 'send dhcp-lease-time 60;' >/run/rig/dhclient.conf
  dhclient_of "$1" "$2" -d -cf /run/rig/dhclient.conf >"$RIG_LOGS/dhclient-$1-$2.log" 2>&1 &
}
fill_disk() { head -c 64M /dev/zero >"/var/lib/vmfabric/ballast-$1" 2>/dev/null; } # WHEN
in_trouble() { vmfabric status | grep -q 'cannot be stored: .*\(full\|space\)'; }

need "a network" vmfabric network create lab
need "with DHCPv4" vmfabric subnet create lab 10.55.0.0/24 --lease-time 60
need "and DHCPv6" vmfabric subnet create lab fd00:55::/64 --lease-time 60
need "its bridge" wait_for $LONG ip link show vmf-lab
need "a guest" guest old 01
client old 4
client old 6
need "its leases" eval 'eventually is_told old BOUND && eventually is_told old BOUND6'

fill_disk running
need "the disk is full" eval '[ "$(df --output=avail /var/lib/vmfabric | tail -n 1)" -eq 0 ]'
renewed4=$(told old RENEW) renewed6=$(told old RENEW6)
need "a new guest" guest new 02
client new 4
check "it is refused a DHCPv4 lease, and status says why" eventually in_trouble
client new 6
check "who has a DHCPv4 lease renews it" eventually more_told old RENEW "$renewed4"
check "and a DHCPv6 lease" eventually more_told old RENEW6 "$renewed6"
check "the new one has neither" eval 'not is_told new BOUND && not is_told new BOUND6'

stop_vmfabricd
fill_disk stopped
need "stopped and started, with what it gave back taken by others" start_vmfabricd
fill_disk started
renewed4=$(told old RENEW) renewed6=$(told old RENEW6)
check "who has a DHCPv4 lease renews it still" eventually more_told old RENEW "$renewed4"
check "and a DHCPv6 lease" eventually more_told old RENEW6 "$renewed6"
check "the new one has still neither" eval 'not is_told new BOUND && not is_told new BOUND6'

rm /var/lib/vmfabric/ballast-*
check "with room again the new one has its leases" eval 'eventually is_told new BOUND && eventually is_told new BOUND6'
check "and status has no complaint" wait_for $LONG not in_trouble
check "the old one lost nothing" not eval 'grep -q "EXPIRE\|FAIL\|DEPREF6\|STOP6" /run/rig/old.told'
finish
