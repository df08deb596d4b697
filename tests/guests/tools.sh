#!/bin/bash
# tools.sh: the tools that people have for libvirt, unchanged, on networks of vmfabric's: virt-install and the Python module.
. "$(dirname "$0")/checks.sh"
stage
kernel=${VMFABRIC_KERNELS:-$("$VMFABRIC_RIG/build-kernels")}/vmlinux-guest initrd=${VMFABRIC_GUEST:-$("$VMFABRIC_RIG/make-guest")}
install_guest() { # NAME MAC [MORE NETWORK OPTIONS]
  virt-install --name "$1" --virt-type qemu --arch x86_64 --machine pc --memory 64 --vcpus 1 --import --disk none --osinfo linux2022 \
    --boot "kernel=$kernel,initrd=$initrd,kernel_args=console=ttyS0 quiet panic=-1 host=$1" \
    --network "network=nat,mac=$2,model=virtio,rom.bar=off${3-}" --graphics none --noautoconsole --controller type=usb,model=none \
    --serial "unix,path=$RIG_LOGS/$1.console,mode=bind,log.file=$RIG_LOGS/$1.log,log.append=on" --memballoon none --rng none
}
address_of() { virsh domifaddr "$1" --source lease | awk '/ipv4/ { sub("/.*", "", $4); print $4 }'; }
has_address() { [ -n "$(address_of "$1")" ]; }

check "vmfabric network set nat name=nat" vmfabric network set nat name=nat
need "virt-install makes and starts a guest on it" install_guest made 52:54:00:83:00:01
check "it has a lease" has_lease made
check "virsh domifaddr shows its address" eventually has_address made
check "it reaches its gateway" pings made 192.168.123.1
check "virt-install puts one into another network of ours" eval \
  'vmfabric network create lab && vmfabric subnet create lab 192.168.78.0/24 && eventually network_active lab &&
   install_guest two 52:54:00:83:00:02 --network=network=lab,mac=52:54:00:83:00:03,model=virtio,rom.bar=off && eventually port_is 52:54:00:83:00:03 status active'

check "Python's libvirt module: lists, leases, hot-plug, migration of a NIC to another network, link state" \
  timeout 60 /usr/bin/python3 - "$(address_of made)" <<'PY'
import sys, time
import libvirt

def until(what, is_so):
    end = time.monotonic() + 20
    while not (value := is_so()):
        assert time.monotonic() < end, what
        time.sleep(.05)
    return value

conn = libvirt.open("qemu:///system")
assert {"nat", "lab"} <= {net.name() for net in conn.listAllNetworks(libvirt.VIR_CONNECT_LIST_NETWORKS_ACTIVE)}
nat = conn.networkLookupByName("nat")
assert nat.isActive() and nat.isPersistent() and nat.autostart()
lease, = [l for l in nat.DHCPLeases() if l["mac"] == "52:54:00:83:00:01"]
assert lease["ipaddr"] == sys.argv[1] and lease["hostname"] == "made" and lease["iface"] == nat.bridgeName(), lease
made = conn.lookupByName("made")
addresses = made.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE)
(nic,) = addresses.values()
assert nic["hwaddr"] == "52:54:00:83:00:01" and nic["addrs"][0]["addr"] == sys.argv[1], addresses
xml = """<interface type='network'><mac address='52:54:00:83:00:09'/><source network='lab'/>
  <model type='virtio'/><rom enabled='no'/></interface>"""
made.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
lab = conn.networkLookupByName("lab")
until("a lease for the hot-plugged NIC", lambda: lab.DHCPLeases("52:54:00:83:00:09"))
assert lab.listAllPorts(), "libvirt's ports of the network"
made.updateDeviceFlags(xml.replace("'lab'", "'nat'"), libvirt.VIR_DOMAIN_AFFECT_LIVE)
nic = lambda: made.XMLDesc().split("52:54:00:83:00:09")[1].split("</interface>")[0]
until("the NIC is on the other network's bridge", lambda: nat.bridgeName() in nic())
made.detachDeviceFlags(xml.replace("'lab'", "'nat'"), libvirt.VIR_DOMAIN_AFFECT_LIVE)
PY
check "the hot-plugged NIC's port is gone" eventually no_port 52:54:00:83:00:09

check "link state: a NIC whose link is down is silent" eval \
  'virsh domif-setlink made 52:54:00:83:00:01 down && ! guest_run made "ping -c 1 -W 1 192.168.123.1"'
check "its port stays as it is" port_is 52:54:00:83:00:01 status active
check "and it speaks when it is up" eval 'virsh domif-setlink made 52:54:00:83:00:01 up && eventually pings made 192.168.123.1'
queue() { tc qdisc show dev "$(tap_of made 52:54:00:83:00:01)"; }
check "what others set on a tap, as libvirt does for <bandwidth>, is not fought" eval \
  'tc qdisc replace dev "$(tap_of made 52:54:00:83:00:01)" root pfifo limit 77 && vmfabric network set nat mtu=1400 && eventually plan_is_empty && queue | grep "limit 77"'
check "so is isolation" eval 'virsh dumpxml two >"$RIG_LOGS/two.xml"; virsh destroy two && virsh undefine two &&
  define_guest iso 52:54:00:83:00:04 "<interface type=\"network\"><source network=\"nat\" portgroup=\"nobody\"/><port isolated=\"yes\"/><mtu size=\"1400\"/></interface>" &&
  virsh start iso && eventually port_is 52:54:00:83:00:04 status active && bridge -d link show dev "$(tap_of iso 52:54:00:83:00:04)" | grep "isolated on" && ip link show "$(tap_of iso 52:54:00:83:00:04)" | grep "mtu 1400" && plan_is_empty'
check "a port group that is not there is told of" grep -q "portgroup 'nobody'" "$RIG_LOGS/vmfabricd.log"
check "the guests go, and their ports" eval 'virsh destroy made && virsh undefine made && virsh destroy iso && virsh undefine iso && eventually no_port 52:54:00:83:00:01'
finish
