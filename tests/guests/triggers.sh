#!/bin/bash
# triggers.sh hook|netlink|port-created|libvirt: one way of learning of a guest's NIC, with the others switched off.
. "$(dirname "$0")/checks.sh"
trigger=$1
first=52:54:00:10:00:01 second=52:54:00:10:00:02

case $trigger in port-created) export VMFABRIC_TRIGGERS=netlink ;; *) export VMFABRIC_TRIGGERS=$trigger ;; esac
install_vmfabric && start_bus || finish
case $trigger in
  hook) rm /etc/libvirt/hooks/network.d/vmfabric ;;
  port-created) rm /etc/libvirt/hooks/qemu.d/vmfabric ;;
  *) rm /etc/libvirt/hooks/{qemu,network}.d/vmfabric ;;
esac
need "vmfabricd is up; it listens to: $trigger" start_vmfabricd
need "libvirtd is up" start_libvirt
bridge=$(vmfabric --json network show nat | sed -n 's/.*"bridge": "\(.*\)".*/\1/p')

sees_first_frame() { # the probe that the guest sends as it raises its NIC arrived behind the filters
  grep -q "$first > ff:ff:ff:ff:ff:ff" "$RIG_LOGS/capture.txt" || { cat "$RIG_LOGS/capture.txt"; return 1; }
}
all_dhcp_answered() { # the first message too, however often it was said
  local asked answered
  asked=$(grep -c 'BOOTP/DHCP, Request' "$RIG_LOGS/capture.txt") answered=$(grep -c 'BOOTP/DHCP, Reply' "$RIG_LOGS/capture.txt")
  [ "$asked" -ge 2 ] && [ "$asked" = "$answered" ] || { cat "$RIG_LOGS/capture.txt"; return 1; }
}
plug() { virsh attach-device web /dev/stdin --live <<<"$(nic_xml "$second" "$1")"; }

case $trigger in
  hook)
    define_guest web "$first" bridge="$bridge"
    need "virsh start --paused web" virsh start --paused web
    tap=$(tap_of web "$first")
    check "before the guest runs, its tap $tap is bound" bound "$tap"
    check "its port is active" port_is "$first" status active
    check "its port knows the tap" port_is "$first" tap "$tap"
    tcpdump -nel -i "$bridge" "ether host $first" >"$RIG_LOGS/capture.txt" 2>"$RIG_LOGS/tcpdump.log" &
    wait_for 10 grep -q 'listening on' "$RIG_LOGS/tcpdump.log"
    check "virsh resume web" virsh resume web
    check "web has a lease" has_lease web
    check "its first frame arrived" eventually sees_first_frame
    check "its first DHCP message was heard, and all others" eventually all_dhcp_answered
    ;;
  netlink)
    check "a port is made for a NIC that comes" vmfabric port create nat --mac "$first"
    define_guest web "$first" bridge="$bridge"
    need "virsh start web" virsh start web
    check "web has a lease" has_lease web
    check "its port is active" eventually port_is "$first" status active
    check "a port is made for another" vmfabric port create nat --mac "$second"
    check "it is hot-plugged" plug bridge="$bridge"
    check "its port is active" eventually port_is "$second" status active
    check "it has a lease" has_lease web $LONG eth1
    ;;
  port-created)
    virsh -q net-define /dev/stdin <<<"<network><name>nat</name><forward mode='bridge'/><bridge name='$bridge'/></network>"
    need "a libvirt network is on the bridge" virsh -q net-start nat
    define_guest web
    need "a guest without a NIC starts" virsh start web
    wait_for $LONG guest_run web true # it hears of NICs only from here on
    check "a NIC is hot-plugged" plug network=nat
    check "its port was made by libvirt's network hook, and is active" eventually port_is "$second" status active
    check "it has a lease" has_lease web
    ;;
  libvirt)
    need "libvirt shows the network 'nat'" wait_for $LONG network_active nat
    define_guest web "$first" network=nat
    need "virsh start web" virsh start web
    check "web has a lease" has_lease web
    check "its port is active" eventually port_is "$first" status active
    check "a NIC is hot-plugged" plug bridge="$bridge"
    check "it has a lease" has_lease web $LONG eth1
    check "its port is active" eventually port_is "$second" status active
    check "it is unplugged" virsh detach-device web /dev/stdin --live <<<"$(nic_xml "$second" bridge="$bridge")"
    check "its port is gone" eventually no_port "$second"
    ;;
esac
check "the plan is empty" eventually plan_is_empty
check "virsh destroy web" virsh destroy web
check "nothing of the guest is left bound" eventually nothing_bound
finish
