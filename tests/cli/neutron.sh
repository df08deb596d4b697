#!/bin/bash
# neutron.sh: the commands of docs/migrating-from-neutron.md print what stands below them there, those of a guest too that
# moves from a bridge as Neutron's agent makes them.
. "$(dirname "$0")/console.sh"
prepare
cp "$VMFABRIC_REPO"/tests/data/neutron/*.json . || exit
install -m 755 /usr/share/doc/vmfabric/docs/neutron-to-vmfabric /usr/local/bin/ || exit
ip link add eth1 address 02:00:00:00:00:01 type dummy && ip link set eth1 up || exit
shown migrating-from-neutron.md /etc/vmfabric/vmfabricd.toml >/etc/vmfabric/vmfabricd.toml
shown migrating-from-neutron.md nic.xml >nic.xml
begin
start_libvirt && wait_for 90 vmfabric status || exit
ip link add brqaa8bc1b7-85 type bridge && ip link set brqaa8bc1b7-85 up || exit
define_guest instance-00000007 fa:16:3e:4a:10:03 "<interface type='bridge'><source bridge='brqaa8bc1b7-85'/>
  <target dev='tapf1c9274d-01'/></interface>" && command virsh -q start instance-00000007 || exit
wait_for 60 grep -q GUEST-NIC "$RIG_LOGS/instance-00000007.log" || exit
run migrating-from-neutron.md
# What the guide says of the guest: it has its address again.
wait_lease instance-00000007 120 | grep -F 'ip=10.20.0.12/24' || failed=1
exit $failed
