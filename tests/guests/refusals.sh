#!/bin/bash
# refusals.sh: a NIC that cannot be on its network keeps its guest from starting, says why, and leaves nothing behind.
. "$(dirname "$0")/checks.sh"
stage
taps() { ip -br link | grep -c '^vnet'; }
leaves_nothing() { # GUEST MAC
  stopped "$1" && no_port "$2" && [ "$(taps)" = "$taps" ] && nothing_bound_but_web && plan_is_empty
}
nothing_bound_but_web() { [ "$(ip link | grep -c 'alias vmfabric:port/')" = 1 ]; }
metadata() { # MAC ATTRIBUTES
  echo "<metadata><v:domain xmlns:v='https://vmfabric.org/xmlns/domain/1.0'><v:interface mac='$1' $2/></v:domain></metadata>"
}
define_guest web 52:54:00:20:00:01 network=nat
need "web starts" virsh start web
taps=$(taps)

mac=52:54:00:20:00:02
GUEST_XML=$(metadata $mac "network='lab'") define_guest lost $mac network=nat
check "metadata that names a network that is not there: the start fails, saying so" \
  fails_saying "NIC $mac of guest 'lost'|network 'lab'|does not exist|vmfabric network create lab" virsh start lost
check "nothing is left" leaves_nothing lost $mac
check "the network is made, as it said" vmfabric network create lab
check "and the guest starts" virsh start lost
check "on that network" port_is $mac network lab
virsh -q destroy lost && virsh -q undefine lost

define_guest twin 52:54:00:20:00:01 network=nat
check "a MAC address of another guest: the start fails, naming both" \
  fails_saying "NIC 52:54:00:20:00:01 of guest 'twin'|network 'nat'|'web'|give one of them another" virsh start twin
check "web keeps its port" port_is 52:54:00:20:00:01 device_name web
check "twin is not running" stopped twin

mac=52:54:00:20:00:03
GUEST_XML=$(metadata $mac "port='nowhere'") define_guest ported $mac network=nat
check "metadata that names a port that is not there" \
  fails_saying "NIC $mac of guest 'ported'|port|nowhere|vmfabric port create" virsh start ported
check "nothing is left" leaves_nothing ported $mac

mac=52:54:00:20:00:04
GUEST_XML=$(metadata $mac "security-groups='walled'") define_guest grouped $mac network=nat
check "metadata that names a security group that is not there" \
  fails_saying "NIC $mac of guest 'grouped'|security group 'walled'|vmfabric security-group create walled" virsh start grouped
check "nothing is left" leaves_nothing grouped $mac
virsh -q undefine grouped
GUEST_XML=$(metadata $mac "port-security='off'") define_guest open $mac network=nat
check "metadata that takes port security off, where the host does not allow it" \
  fails_saying "NIC $mac of guest 'open'|metadata_port_security_off = true" virsh start open
check "nothing is left" leaves_nothing open $mac
virsh -q undefine open
GUEST_XML=$(metadata $mac "security-group='walled'") define_guest slip $mac network=nat
check "a slip of the pen is refused, not passed over" fails_saying "security-group is not known" virsh start slip
virsh -q undefine slip

check "a network with two addresses" vmfabric network create tiny
check "its subnet" vmfabric subnet create tiny 10.77.0.0/24 --forward nat --pool 10.77.0.10-10.77.0.11
wait_for $LONG network_active tiny
for n in 1 2 3; do define_guest small$n 52:54:00:20:01:0$n network=tiny; done
check "the first guest starts" virsh start small1
check "the second guest starts" virsh start small2
taps=$(taps)
check "the third does not: no address is free" \
  fails_saying "NIC 52:54:00:20:01:03 of guest 'small3'|network 'tiny'|no address is free|widen the pools" virsh start small3
check "it is not running and has no port" eval 'stopped small3 && no_port 52:54:00:20:01:03'
check "no tap is left" eval '[ "$(taps)" = "$taps" ]'
check "a hot-plugged NIC finds no address either, and is refused" \
  fails_saying "tiny|no address is free" virsh attach-device web /dev/stdin --live <<<"$(nic_xml 52:54:00:20:01:04 network=tiny)"
check "and is not there" eval 'no_port 52:54:00:20:01:04 && [ "$(taps)" = "$taps" ] && [ -z "$(tap_of web 52:54:00:20:01:04)" ]'
check "the first guest goes" eval 'virsh destroy small1 && virsh undefine small1 && eventually no_port 52:54:00:20:01:01'
check "the third starts" virsh start small3
check "and has a lease" has_lease small3
check "the plan is empty" eventually plan_is_empty

check "a transient guest on a network that is not there" \
  fails_saying "network 'gone'|does not exist" eval \
  'GUEST_XML=$(metadata 52:54:00:20:02:01 "network='"'gone'"'") domain_xml brief 52:54:00:20:02:01 network=nat >/run/rig/brief.xml; virsh create /run/rig/brief.xml'
check "it is not there" eval '! virsh domstate brief && no_port 52:54:00:20:02:01'
cat >/run/rig/qemu-fails.xml <<<"$(domain_xml unlucky 52:54:00:20:02:02 network=nat | sed 's|<kernel>.*</kernel>|<kernel>/nonexistent</kernel>|')"
check "a transient guest that QEMU does not start" not virsh create /run/rig/qemu-fails.xml
check "its port goes with it" eventually no_port 52:54:00:20:02:02
check "a guest that another hook keeps from starting" eval '
  printf "#!/bin/sh\n[ \$2.\$1 = start.web2 ] || exit 0\necho no >&2; exit 1\n" >/etc/libvirt/hooks/qemu.d/zz-last
  chmod +x /etc/libvirt/hooks/qemu.d/zz-last
  define_guest web2 52:54:00:20:02:03 network=nat && ! virsh start web2'
check "its port is not attached" eventually port_is 52:54:00:20:02:03 status down
check "the plan is empty" eventually plan_is_empty
finish
