#!/bin/bash
# publish.sh: our networks are libvirt networks of the same name.
. "$(dirname "$0")/checks.sh"
stage
listed() { virsh net-list --all --name | grep -qx "$1"; }
bridge_of() { vmfabric --json network show "$1" | sed -n 's/.*"bridge": "\(.*\)".*/\1/p'; }

check "vmfabric network create lab" vmfabric network create lab
check "libvirt shows it, active" eventually network_active lab
check "it starts by itself" eval 'virsh net-info lab | grep "^Autostart: *yes"'
check "it is a bridge of ours" eval "virsh net-dumpxml lab | tee /dev/stderr | grep \"<forward mode='bridge'/>\" && virsh net-dumpxml lab | grep \"<bridge name='$(bridge_of lab)'\""
check "vmfabric network set lab name=test" vmfabric network set lab name=test
check "libvirt follows" eventually eval 'network_active test && ! listed lab'
check "somebody stops it in libvirt" virsh net-destroy test
check "it comes back" eventually network_active test
check "somebody undefines it in libvirt" eval 'virsh net-destroy test; virsh net-undefine test; true'
check "it comes back" eventually network_active test
check "vmfabric network delete test" vmfabric network delete test
check "libvirt has it no more" eventually not listed test
check "its bridge is gone" eventually not ip link show vmf-test

virsh -q net-define /dev/stdin <<<"<network><name>taken</name><forward mode='bridge'/><bridge name='br-mine'/></network>"
before=$(virsh net-dumpxml taken)
check "a network whose name libvirt has taken" vmfabric network create taken
check "status says so, and what to do" eventually problem_says "taken"
vmfabric status | grep taken | sed 's/^/                 /'
check "so does the network" eval 'vmfabric network show taken | grep -i libvirt'
check "libvirt's own is left alone" eval '[ "$(virsh net-dumpxml taken)" = "$before" ]'
define_guest other 52:54:00:80:00:09 network=taken
check "somebody else's network goes" virsh net-undefine taken
check "ours takes its place" eventually network_active taken
check "and all is well" eventually vmfabric status
check "deleted" vmfabric network delete taken
check "and gone from libvirt" eventually not listed taken
check "a network libvirt has from elsewhere is not touched by a deletion" eval \
  'virsh -q net-define /dev/stdin <<<"<network><name>keep</name><forward mode=\"bridge\"/><bridge name=\"br-mine\"/></network>" &&
   vmfabric network create keep && eventually problem_says keep && vmfabric network delete keep && eventually vmfabric status && listed keep'

define_guest web 52:54:00:80:00:01 network=nat
need "a guest starts" virsh start web
check "its network is not deleted" fails_saying "nat|'web'" vmfabric network delete nat
check "nor its subnet" fails_saying "nat|'web'" vmfabric subnet delete nat
check "nor its port" fails_saying "'web'" vmfabric port delete 52:54:00:80:00:01
check "that is a conflict, to scripts" eval 'vmfabric network delete nat; [ $? = 4 ]'
check "it has a lease" has_lease web
check "its network is renamed" vmfabric network set nat name=natty
check "libvirt follows" eventually network_active natty
check "the guest's port stays" eventually port_is 52:54:00:80:00:01 status active
check "the guest reaches its gateway" pings web 192.168.123.1
check "it is renamed back" vmfabric network set natty name=nat
check "libvirt follows" eventually network_active nat
check "the guest stops, and starts again" eval 'virsh destroy web && virsh start web'
check "its port is active" eventually port_is 52:54:00:80:00:01 status active
check "the guest stops" virsh destroy web
check "now its network is deleted" eventually vmfabric network delete nat
check "libvirt has it no more" eventually not listed nat
check "the guest does not start" fails_saying "nat" virsh start web
check "the first network does not come back with the daemon" eval 'stop_vmfabricd && start_vmfabricd && ! listed nat && [ "$(vmfabric --json network list)" = "[]" ]'
check "the plan is empty" eventually plan_is_empty
finish
