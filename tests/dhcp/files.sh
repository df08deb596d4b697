# shellcheck shell=bash
# files.sh [--boot RULE]...: a network `boot` with these rules, a file server on it that is not ours, and guests that boot
. "$VMFABRIC_RIG/lib.sh"
set -e
install_vmfabric
start_bus
start_vmfabricd
vmfabric network create boot
vmfabric subnet create boot 10.66.0.0/24 --host-address 10.66.0.1 --gateway 10.66.0.1 "$@"

# As libvirt does, each tap has its guest's MAC address with fe in front: so the daemon finds the port that waits for it.
vmfabric port create boot --mac 52:54:00:66:00:09 --address 10.66.0.9 --name files >/dev/null
wait_for 30 ip link show vmf-boot
# The file server: a host on the network with dnsmasq for TFTP, without DHCP or DNS, and busybox for HTTP.
mkdir -p /run/boot
ip netns add files
ip link add tap-files address fe:54:00:66:00:09 type veth peer name eth0 address 52:54:00:66:00:09 netns files
ip link set tap-files master vmf-boot up
ip -n files addr add 10.66.0.9/24 dev eth0
ip -n files link set eth0 up
ip -n files link set lo up
cat >/run/boot/second.ipxe <<'IPXE'
#!ipxe
# What it was told comes back as a request.
imgfetch http://${next-server}/told/${net0/ip}/${net0/netmask} ||
poweroff
IPXE
ip netns exec files dnsmasq --log-facility="$RIG_LOGS/tftp.log" --port=0 --enable-tftp --tftp-root=/run/boot --interface=eth0 --bind-interfaces --user=root --pid-file
ip netns exec files busybox httpd -f -vv -p 10.66.0.9:80 -h /run/boot 2>"$RIG_LOGS/httpd.log" &
wait_for 10 ip netns exec files busybox wget -q -O /dev/null http://10.66.0.9/second.ipxe

# boot NAME MAC WHAT-IT-TELLS ARG...: QEMU with these arguments and the backend `n`, until it told, or the time is out
boot() {
  ip tuntap add "tap-$1" mode tap
  ip link set "tap-$1" address "fe:${2#*:}"
  ip link set "tap-$1" master vmf-boot up
  # TCG: some nested KVM cannot run a boot ROM.
  qemu-system-x86_64 -accel tcg -display none -nodefaults -vga std -boot n \
    -netdev "tap,id=n,ifname=tap-$1,script=no,downscript=no" "${@:4}" </dev/null &
  local qemu=$!
  wait_for 180 grep -q "$3" "$RIG_LOGS/httpd.log" || {
    cat "$RIG_LOGS"/{vmfabricd,httpd,tftp}.log
    vmfabric lease list
    die "$1 did not tell $3"
  }
  kill "$qemu"
}
