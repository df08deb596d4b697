#!/bin/bash
# bandwidth.sh: a real guest whose definition has <bandwidth>, which libvirt applies and vmfabric leaves alone; and a port
# with rates of its own under libvirt's hands (virsh domiftune, a hot-plugged NIC).
. "$(dirname "$0")/checks.sh"
A=52:54:00:71:00:01 B=52:54:00:71:00:02
stage
limited() { echo "<interface type='network'><source network='$1'/><bandwidth><inbound average='1000' burst='512'/><outbound average='500'/></bandwidth></interface>"; }
tap() { port "$1" tap; }
root() { tc qdisc show dev "$(tap "$1")" root; }
incoming() { tc filter show dev "$(tap "$1")" ingress; }
has() { wait_for $LONG eval "$1 $2 | grep -E '$3'" || { "$1" "$2"; return 1; }; } # root|incoming MAC TEXT
status_is() { wait_for $LONG eval "[ \"\$(port $1 status)\" = $2 ]" || { port "$1" status; port "$1" problems; return 1; }; }

need "a guest with <bandwidth>" define_guest a $A "$(limited nat)"
need "it starts" virsh start a
check "libvirt's queue is at its tap" has root $A '^qdisc htb 1:'
check "libvirt's policer too" has incoming $A 'police.*rate 4Mbit'
check "the port is active, and has no problem" status_is $A active
check "the plan is empty" eventually plan_is_empty
check "a rate of the port" vmfabric port set $A rate-in=5M rate-out=5M
check "libvirt's stay, and the port is degraded" eval "status_is $A degraded && has root $A '^qdisc htb 1:' && has incoming $A 'rate 4Mbit'"
check "the guest has its address all the same" wait_lease a $LONG
check "virsh domiftune takes libvirt's away" virsh domiftune a "$(tap $A)" --inbound 0 --outbound 0
check "then the port's are there" eval "has root $A 'tbf 766d:.*rate 5Mbit' && has incoming $A 'rate 5Mbit'"
check "… and it is active" status_is $A active
check "virsh domiftune puts libvirt's in their place" virsh domiftune a "$(tap $A)" --inbound 2000 --outbound 2000
check "… which stay" eval "status_is $A degraded; has root $A '^qdisc htb 1:' && has incoming $A 'rate 16Mbit'"

kind() { root "$1" | head -n 1 | cut -d' ' -f2; }
vmfabric port create nat --mac $B >"$RIG_LOGS/port"
nic_xml $B network=nat >"$RIG_LOGS/nic.xml"
check "a NIC is plugged in" virsh attach-device a "$RIG_LOGS/nic.xml"
check "its port is active" status_is $B active
before=$(kind $B)
check "rates, while it is there" vmfabric port set $B rate-in=3M rate-out=3M
check "… are applied" eval "has root $B 'tbf 766d:.*rate 3Mbit' && has incoming $B 'rate 3Mbit'"
check "it is unplugged and plugged in again" eval "virsh detach-device a '$RIG_LOGS/nic.xml' && wait_for $LONG eval '[ -z \"\$(tap $B | grep vnet)\" ]' && virsh attach-device a '$RIG_LOGS/nic.xml'"
check "… with its rates" eval "status_is $B active && has root $B 'tbf 766d:.*rate 3Mbit' && has incoming $B 'rate 3Mbit'"
check "without rates" vmfabric port set $B rate-in= rate-out=
check "its tap is as libvirt made it ($before)" eval "wait_for $LONG eval '[ \"\$(kind $B)\" = $before ] && ! incoming $B | grep police'"
check "the plan is empty at the end" eventually plan_is_empty
finish
