#!/bin/bash
# import-kinds.sh: libvirt's networks of modes route, open and none, with IPv6, become networks of vmfabric's with their guests,
# and are given back.
. "$(dirname "$0")/checks.sh"
install_vmfabric && start_bus && start_libvirt || finish

declare -A macs=([routed]=52:54:00:91:00:01 [opened]=52:54:00:91:00:02 [alone]=52:54:00:91:00:03) addresses
define() { # NAME BRIDGE NUMBER FORWARD IPV6-DHCP
  virsh -q net-define /dev/stdin <<X
<network>
  <name>$1</name>$4
  <bridge name='$2' stp='off'/>
  <ip address='10.$3.0.1' prefix='24'><dhcp><range start='10.$3.0.10' end='10.$3.0.99'/></dhcp></ip>
  <ip family='ipv6' address='fd00:$3::1' prefix='64'>$5</ip>
</network>
X
}
need "a routed network" define routed virbr1 71 "<forward mode='route'/>"
need "an open network" define opened virbr2 72 "<forward mode='open'/>" \
  "<dhcp><range start='fd00:72::100' end='fd00:72::1ff'/><host id='00:03:00:01:${macs[opened]}' ip='fd00:72::50'/></dhcp>"
need "an isolated network" define alone virbr3 73 ""
for name in routed opened alone; do
  need "libvirt's network $name starts" virsh net-start $name
  need "a guest of it" eval "define_guest $name ${macs[$name]} network=$name && virsh -q start $name"
done
for name in routed opened alone; do
  need "$name has a lease of dnsmasq's" has_lease $name
  addresses[$name]=$(guest_ip $name)
done
# `opened` has no DHCPv6 client, and so no address of its network's.
for number in 71:routed 73:alone; do
  check "${number#*:} reaches its gateway by IPv6" eventually guest_run "${number#*:}" "ping -6 -c 1 -W 2 fd00:${number%:*}::1"
done
declare -A before
for name in routed opened alone; do before[$name]=$(virsh net-dumpxml $name --inactive); done

need "vmfabricd comes" start_vmfabricd
says() { grep -qF -- "$1" "$RIG_LOGS/plan" || { cat "$RIG_LOGS/plan"; return 1; }; }
check "the plan" eval 'vmfabric import-libvirt --dry-run >"$RIG_LOGS/plan"'
sed 's/^/                 /' "$RIG_LOGS/plan"
check "it says who makes addresses of their own" says "subnet fd00:71::/64: this host is fd00:71::1, forwarding routed, guests make addresses of their own"
check "where DHCPv6 serves them, and for whom it reserves" eval 'says "DHCP from fd00:72::100-fd00:72::1ff" && says "reserve ${addresses[opened]}, fd00:72::50 for ${macs[opened]}"'
check "what 'open' becomes" says "forward mode 'open'"

need "vmfabric import-libvirt" vmfabric import-libvirt
addresses_of() { guest_run "$1" "ip -6 addr show eth0"; }
for name in routed opened alone; do
  mac=${macs[$name]} number=$(grep -o '[0-9]*' <<<"${addresses[$name]}" | sed -n 2p)
  check "$name: the guest is on our bridge" eval "ip -o link show master vmf-$name | grep -q \"$(tap_of $name $mac)\""
  check "… has its address" eval "port $mac addresses | grep -F '${addresses[$name]}'"
  check "… reaches its gateway" pings $name 10.$number.0.1
  [ $name = opened ] || check "… by IPv6" eventually guest_run $name "ping -6 -c 1 -W 2 fd00:$number::1"
  check "… has a default route unless it is isolated" \
    eval "[ $name = alone ] || guest_run $name 'ip route show default' | grep -q 'via 10.$number.0.1'"
done
check "the isolated guest has none" eval '! guest_run alone "ip route show default" | grep -q via'
check "a guest made its address of our advertisements" eventually eval 'addresses_of routed | grep -qi "fd00:71:.*5054:ff:fe91:1/64"'
check "routed guests reach each other, from network to network" pings routed "${addresses[opened]}"
check "nobody reaches the isolated one" eval '! guest_run routed "ping -c 1 -W 1 ${addresses[alone]}"'
check "all is well" eventually vmfabric status

need "vmfabric import-libvirt --undo" vmfabric import-libvirt --undo routed opened alone
for name in routed opened alone; do
  check "$name is libvirt's as it was, and active" eval '[ "$(virsh net-dumpxml '$name' --inactive)" = "${before['$name']}" ] && network_active '$name
  check "… and its guest on it" eventually pings $name "$(sed 's/[0-9]*$/1/' <<<"${addresses[$name]}")"
done
finish
