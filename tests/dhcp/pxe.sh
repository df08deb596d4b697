# Real boot ROMs (iPXE in QEMU's NICs) boot over the network from servers that are not ours: dnsmasq for TFTP, busybox for
# HTTP. What they are told depends on the user class, and on the port.
. "$VMFABRIC_RIG/lib.sh"
set -e
install_vmfabric
start_bus
start_vmfabricd
vmfabric network create boot
vmfabric subnet create boot 10.66.0.0/24 --host-address 10.66.0.1 --gateway 10.66.0.1 \
  --boot server=10.66.0.9 --boot bios=first.ipxe --boot ipxe=http://10.66.0.9/second.ipxe --dhcp-option ntp-servers=10.66.0.5

# As libvirt does, each tap has its guest's MAC address with fe in front: so the daemon finds the port that waits for it.
vmfabric port create boot --mac 52:54:00:66:00:09 --address 10.66.0.9 --name files >/dev/null
vmfabric port create boot --mac 52:54:00:66:00:01 >/dev/null
# A port's own rule wins: this one's iPXE gets a file by TFTP first.
vmfabric port create boot --mac 52:54:00:66:00:02 --address 10.66.0.77 --boot ipxe=first.ipxe >/dev/null

# The file server: a host on the network with dnsmasq for TFTP, without DHCP or DNS, and busybox for HTTP.
mkdir -p /run/boot
ip netns add files
ip link add tap-files address fe:54:00:66:00:09 type veth peer name eth0 address 52:54:00:66:00:09 netns files
ip link set tap-files master vmf-boot up
ip -n files addr add 10.66.0.9/24 dev eth0
ip -n files link set eth0 up
ip -n files link set lo up
cat >/run/boot/first.ipxe <<'IPXE'
#!ipxe
echo FIRST-STAGE by TFTP from ${next-server} as ${net0/ip}
chain http://${next-server}/second.ipxe
IPXE
cat >/run/boot/second.ipxe <<'IPXE'
#!ipxe
echo SECOND-STAGE by HTTP ${net0/ip} ${net0/ntp:ipv4} ${filename}
poweroff
IPXE
ip netns exec files dnsmasq --port=0 --enable-tftp --tftp-root=/run/boot --interface=eth0 --bind-interfaces --user=root --pid-file
ip netns exec files busybox httpd -f -p 10.66.0.9:80 -h /run/boot &
wait_for 10 ip netns exec files busybox wget -q -O /dev/null http://10.66.0.9/second.ipxe

boot() { # NAME ROM-DRIVER
  ip tuntap add "tap-$1" mode tap
  ip link set "tap-$1" address "fe:${3#*:}"
  ip link set "tap-$1" master vmf-boot up
  timeout 150 qemu-system-x86_64 -accel tcg -m 64 -display none -nodefaults -serial "file:$RIG_LOGS/$1.log" \
    -fw_cfg name=etc/sercon-port,string=0x3f8 -boot n -no-reboot \
    -netdev "tap,id=n,ifname=tap-$1,script=no,downscript=no" -device "$2,netdev=n,mac=$3" </dev/null
  cat -v "$RIG_LOGS/$1.log"
}

# iPXE in the NIC's ROM is iPXE already: it gets the script at once.
boot rom virtio-net-pci 52:54:00:66:00:01 >"$RIG_LOGS/rom.txt" || { cat "$RIG_LOGS/rom.txt" "$RIG_LOGS/vmfabricd.log"; die "the ROM did not boot"; }
grep -q 'SECOND-STAGE by HTTP 10.66.0.[0-9]* 10.66.0.5 http://10.66.0.9/second.ipxe' "$RIG_LOGS/rom.txt" ||
  { cat "$RIG_LOGS/rom.txt"; die "no second stage"; }
! grep -q FIRST-STAGE "$RIG_LOGS/rom.txt" || die "iPXE was told the BIOS's file"

boot tftp e1000 52:54:00:66:00:02 >"$RIG_LOGS/tftp.txt" || { cat "$RIG_LOGS/tftp.txt"; die "the second ROM did not boot"; }
grep -q 'FIRST-STAGE by TFTP from 10.66.0.9 as 10.66.0.77' "$RIG_LOGS/tftp.txt" || { cat "$RIG_LOGS/tftp.txt"; die "no first stage"; }
grep -q 'SECOND-STAGE by HTTP 10.66.0.77' "$RIG_LOGS/tftp.txt" || { cat "$RIG_LOGS/tftp.txt"; die "no second stage after the first"; }
vmfabric --json lease list boot | grep -q 10.66.0.77 || die "no lease"
echo "both boot ROMs booted over the network"
