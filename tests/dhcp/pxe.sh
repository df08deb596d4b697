# Real boot ROMs (iPXE in QEMU's NICs) boot over the network from servers that are not ours: dnsmasq for TFTP, busybox for
# HTTP. What they are told depends on the user class, and on the port.
. "$VMFABRIC_RIG/lib.sh"
set -e
install_vmfabric
start_bus
start_vmfabricd
vmfabric network create boot
vmfabric subnet create boot 10.66.0.0/24 --host-address 10.66.0.1 --gateway 10.66.0.1 \
  --boot server=10.66.0.9 --boot bios=first.ipxe --boot ipxe=http://10.66.0.9/second.ipxe

# As libvirt does, each tap has its guest's MAC address with fe in front: so the daemon finds the port that waits for it.
vmfabric port create boot --mac 52:54:00:66:00:09 --address 10.66.0.9 --name files >/dev/null
vmfabric port create boot --mac 52:54:00:66:00:01 >/dev/null
# A port's own rule wins: this one's iPXE gets a file by TFTP first.
vmfabric port create boot --mac 52:54:00:66:00:02 --address 10.66.0.77 --boot ipxe=first.ipxe >/dev/null

wait_for 30 ip link show vmf-boot
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
# What it was told comes back as a request.
imgfetch http://${next-server}/told/${net0/ip}/${net0/netmask} ||
poweroff
IPXE
ip netns exec files dnsmasq --log-facility="$RIG_LOGS/tftp.log" --port=0 --enable-tftp --tftp-root=/run/boot --interface=eth0 --bind-interfaces --user=root --pid-file
ip netns exec files busybox httpd -f -vv -p 10.66.0.9:80 -h /run/boot 2>"$RIG_LOGS/httpd.log" &
wait_for 10 ip netns exec files busybox wget -q -O /dev/null http://10.66.0.9/second.ipxe

# boot NAME DEVICE MAC WHAT-IT-TELLS: until it told, or the time is out
boot() {
  ip tuntap add "tap-$1" mode tap
  ip link set "tap-$1" address "fe:${3#*:}"
  ip link set "tap-$1" master vmf-boot up
  # TCG: some nested KVM cannot run a boot ROM.
  qemu-system-x86_64 -accel tcg -m 128 -display none -nodefaults -vga std -boot n \
    -netdev "tap,id=n,ifname=tap-$1,script=no,downscript=no" -device "$2,netdev=n,mac=$3,bootindex=1" </dev/null &
  local qemu=$!
  wait_for 120 grep -q "$4" "$RIG_LOGS/httpd.log" || {
    cat "$RIG_LOGS"/{vmfabricd,httpd,tftp}.log
    vmfabric lease list
    die "$1 did not tell $4"
  }
  kill "$qemu"
}

# iPXE in the NIC's ROM is iPXE already: it gets the script at once.
boot rom virtio-net-pci 52:54:00:66:00:01 'told/10.66.0.[0-9]*/255.255.255.0'
! grep -q first.ipxe "$RIG_LOGS/tftp.log" || die "iPXE was told the BIOS's file"

# The other one's port has a rule of its own.
boot tftp e1000 52:54:00:66:00:02 'told/10.66.0.77/255.255.255.0'
grep -q 'sent /run/boot/first.ipxe to 10.66.0.77' "$RIG_LOGS/tftp.log" || { cat "$RIG_LOGS/tftp.log"; die "nothing came by TFTP"; }
vmfabric --json lease list boot | grep -q 10.66.0.77 || die "no lease"
echo "both boot ROMs booted over the network"
