# shellcheck shell=bash
# namespaces.sh: guests that are network namespaces, with dhclient. Source it after checks.sh.

# attach NAME NUMBER BRIDGE: a namespace whose eth0 is on the bridge by a tap as libvirt would name and address it: so the
# daemon finds the port that waits for it, if one does
attach() {
  ip netns add "$1" &&
    ip netns exec "$1" sysctl -qw net.ipv6.conf.default.dad_transmits=0 &&
    ip link add "vnet$2" address "fe:54:00:00:00:$2" type veth peer name eth0 address "52:54:00:00:00:$2" netns "$1" &&
    ip link set "vnet$2" master "$3" up && ip -n "$1" link set lo up
}
is_bound() { vmfabric port show "$1" | grep -q '^status *active' || { vmfabric port show "$1"; return 1; }; } # PORT
bridge_of() { vmfabric --json network show "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["bridge"])'; }
# has_link_local NAME [NIC]: DHCPv6 speaks from it
has_link_local() { ip -n "$1" -6 addr show dev "${2-eth0}" | grep -v tentative | grep -q 'fe80.*scope link'; }

# What dhclient is told is in /run/rig/NAME.told, a line each.
cat >/run/rig/dhclient-script <<'S'
#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
echo "$reason ${new_ip_address-}${new_ip6_address-}" >>"/run/rig/$guest.told"
[ -z "$new_ip6_address" ] || ip -6 addr replace "$new_ip6_address/128" dev "$interface"
[ -z "$new_ip_address" ] || ip addr replace "$new_ip_address/$new_subnet_mask" dev "$interface"
[ -z "$new_routers" ] || ip route replace default via "${new_routers%% *}"
exit 0
S
chmod 755 /run/rig/dhclient-script
# dhclient_of NAME FAMILY [ARG...]: runs it there, on eth0. LIMIT: for so many seconds at most
dhclient_of() {
  local name=$1 family=$2
  shift 2
  ${LIMIT:+timeout "$LIMIT"} ip netns exec "$name" dhclient "-$family" -e guest="$name" -sf /run/rig/dhclient-script \
    -lf "/run/rig/$name-$family.leases" -pf "/run/rig/$name-$family.pid" "$@" eth0
}
told() { grep -c "^\($2\) " "/run/rig/$1.told"; }          # NAME REASON
is_told() { grep -q "^\($2\) " "/run/rig/$1.told"; }       # NAME REASON
more_told() { [ "$(told "$1" "$2")" -gt "$3" ]; }          # NAME REASON THAN
