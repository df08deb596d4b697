# shellcheck shell=bash
# lib.sh: functions for scripts that run in a private-host, a umlrun host or a host-vm. Source it:
#   . "$VMFABRIC_RIG/lib.sh"
# Each returns non-zero and says why on stderr when it cannot do its work; nothing here waits without a deadline.
# Logs are in $RIG_LOGS: NAME.log for a guest's console, vmfabricd.log, libvirtd.log, …

VMFABRIC_RIG=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
VMFABRIC_REPO=$(cd "$VMFABRIC_RIG/../.." && pwd)
RIG_LOGS=/run/rig
export VMFABRIC_RIG LC_ALL=C.UTF-8 LIBVIRT_DEFAULT_URI=qemu:///system
[ -d "$RIG_LOGS" ] || { echo "lib.sh: not in a rig; run me by private-host, umlrun or host-vm" >&2; exit 2; }

die() { echo "${0##*/}: $*" >&2; exit 1; }

# wait_for SECONDS COMMAND...: runs COMMAND until it succeeds; 1 when time runs out, and says what it waited for
wait_for() {
  # COMMAND sees these, and has names of its own.
  local wait_seconds=$1 wait_deadline=$((${EPOCHREALTIME/./} + $1 * 1000000)) wait_since wait_pause
  shift
  while wait_since=${EPOCHREALTIME/./}; ! "$@" >/dev/null 2>&1; do
    wait_pause=$((${EPOCHREALTIME/./} - wait_since))
    [ $((wait_since + wait_pause)) -lt $wait_deadline ] || { echo "not in $wait_seconds s: $*" >&2; return 1; }
    # As long as a look took, but 0.05 to 0.9 s: half of the machine is for what is waited for.
    wait_pause=$((wait_pause < 50000 ? 50000 : wait_pause > 900000 ? 900000 : wait_pause))
    sleep "$(printf '.%06d' $wait_pause)"
  done
}

# not COMMAND...: succeeds when COMMAND fails (for wait_for)
not() { ! "$@"; }

# --- daemons ---------------------------------------------------------------------------------------------------------

# start_bus: the system bus and polkitd, on stock paths with the stock configuration
start_bus() {
  [ -e /etc/machine-id ] || dbus-uuidgen >/etc/machine-id
  mkdir -p /run/dbus
  dbus-daemon --system --fork --nopidfile || return
  /usr/lib/polkit-1/polkitd --no-debug >"$RIG_LOGS/polkitd.log" 2>&1 &
  wait_for 60 dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetNameOwner \
    string:org.freedesktop.PolicyKit1 || { echo "polkitd did not come up in 60 s" >&2; return 1; }
}

# start_libvirt: virtlogd and libvirtd, ready when it returns. MODULAR=1: virtnetworkd and virtqemud instead
start_libvirt() {
  mkdir -p /etc/libvirt/qemu /etc/libvirt/hooks /var/lib/libvirt/dnsmasq
  cp -n "$VMFABRIC_RIG"/libvirt/*.conf /etc/libvirt/
  local daemon daemons=libvirtd
  [ "${MODULAR-0}" = 0 ] || daemons="virtnetworkd virtqemud"
  pgrep -x virtlogd >/dev/null || virtlogd -d || return
  for daemon in $daemons; do start_libvirt_daemon $daemon || return; done
  wait_for 30 virsh -q uri && wait_for 30 virsh -q net-list && return
  echo "libvirt did not come up in 30 s:" >&2
  tail -n 20 "$RIG_LOGS"/{libvirtd,virtqemud,virtnetworkd}.log /var/log/libvirt/*.log >&2 2>/dev/null
  return 1
}

# start_libvirt_daemon libvirtd|virtqemud|virtnetworkd: in the background
start_libvirt_daemon() {
  local program=$1
  [ $program = libvirtd ] || program=$("$VMFABRIC_RIG/build-libvirt")/$1 || return
  [ -e "/etc/libvirt/$1.conf" ] || sed "s/libvirtd.log/$1.log/" /etc/libvirt/libvirtd.conf >"/etc/libvirt/$1.conf"
  # Not `-d`: the log of a start that fails would be lost.
  "$program" >>"$RIG_LOGS/$1.log" 2>&1 &
}

# stop_libvirt [DAEMON...]: ends libvirt's daemons as systemd would; guests go on running
stop_libvirt() {
  local daemon
  [ $# -gt 0 ] || set -- libvirtd virtqemud virtnetworkd
  for daemon in "$@"; do
    pkill -TERM -x "$daemon" || continue
    wait_for 20 not pgrep -x "$daemon" || { echo "$daemon did not stop in 20 s" >&2; return 1; }
  done
}

# install_vmfabric: `make install` of the binaries in $VMFABRIC_BIN (default: those built last) into /usr
install_vmfabric() {
  local bin=${VMFABRIC_BIN-}
  [ -n "$bin" ] || bin=$(dirname "$(ls -t "$VMFABRIC_REPO"/target/{release,debug}/vmfabricd 2>/dev/null | head -n 1)")
  make -s -C "$VMFABRIC_REPO" install DESTDIR= PREFIX=/usr BIN_DIR="$bin" >"$RIG_LOGS/install.log" 2>&1 ||
    { cat "$RIG_LOGS/install.log" >&2; return 1; }
}

# start_vmfabricd [ARG...]: the daemon in the background; ready when it returns. Its log: $RIG_LOGS/vmfabricd.log
start_vmfabricd() {
  /usr/sbin/vmfabricd "$@" >>"$RIG_LOGS/vmfabricd.log" 2>&1 &
  VMFABRICD_PID=$!
  wait_for 60 vmfabricd_answers && return
  echo "vmfabricd did not come up in 60 s:" >&2
  tail -n 20 "$RIG_LOGS/vmfabricd.log" >&2
  return 1
}
# 7: it is there, and degraded: without libvirt, for one
vmfabricd_answers() { vmfabric status || [ $? = 7 ]; }

# stop_vmfabricd [SIGNAL]: TERM (default) or KILL; returns when the process is gone
stop_vmfabricd() {
  kill "-${1-TERM}" "$VMFABRICD_PID" || return
  wait_for 20 not kill -0 "$VMFABRICD_PID" || { echo "vmfabricd did not stop in 20 s" >&2; return 1; }
  wait "$VMFABRICD_PID" 2>/dev/null || true # its own status is not what was asked
}

# --- guests ----------------------------------------------------------------------------------------------------------

# nic_xml MAC SOURCE: an <interface>. SOURCE: network=NAME, bridge=NAME, or a whole <interface>…</interface> to complete
nic_xml() {
  local inner="<mac address='$1'/><model type='virtio'/><rom enabled='no'/>"
  case $2 in
    network=*) echo "<interface type='network'><source network='${2#*=}'/>$inner</interface>" ;;
    bridge=*) echo "<interface type='bridge'><source bridge='${2#*=}'/>$inner</interface>" ;;
    '<interface'*) echo "${2%</interface>}$inner</interface>" ;;
    *) echo "nic_xml: what is '$2'?" >&2; return 1 ;;
  esac
}

# domain_xml NAME [MAC SOURCE]...: a small guest with these NICs. GUEST_XML: more elements of <domain> (metadata, uuid),
# GUEST_DEVICES: of <devices>; GUEST_MEMORY: MiB; GUEST_ON_CRASH: what libvirt then does (default: destroy); GUEST_HOST: its host name (default: NAME).
# GUEST_KERNEL: `small`, the rig's own (default), or `stock`, Debian's
domain_xml() {
  local name=$1 nics="" memory kernel initrd
  shift
  while [ $# -gt 1 ]; do
    nics+=$(nic_xml "$1" "$2") || return
    shift 2
  done
  if [ "${GUEST_KERNEL-small}" = stock ]; then
    kernel=$("$VMFABRIC_RIG/stock-kernel") && initrd=$("$VMFABRIC_RIG/make-guest" -k "$kernel") || return
    kernel+=/vmlinuz memory=128
  else
    kernel=${VMFABRIC_KERNELS:-$("$VMFABRIC_RIG/build-kernels")} &&
      initrd=${VMFABRIC_GUEST:-$("$VMFABRIC_RIG/make-guest")} || return
    kernel+=/vmlinux-guest memory=64
  fi
  cat <<X
<domain type='qemu'>
  <name>$name</name>
  ${GUEST_XML-}
  <memory unit='MiB'>${GUEST_MEMORY:-$memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>$kernel</kernel><initrd>$initrd</initrd>
    <cmdline>console=ttyS0 quiet panic=-1 host=${GUEST_HOST-$name}</cmdline>
  </os>
  <features><acpi/></features>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff><on_reboot>restart</on_reboot><on_crash>${GUEST_ON_CRASH-destroy}</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <serial type='unix'>
      <source mode='bind' path='$RIG_LOGS/$name.console'/><log file='$RIG_LOGS/$name.log' append='on'/>
    </serial>
    <memballoon model='none'/>
    ${GUEST_DEVICES-}
    $nics
  </devices>
</domain>
X
}

# define_guest NAME [MAC SOURCE]...: `virsh define` of such a guest; start it by `virsh start NAME`
define_guest() {
  domain_xml "$@" >"$RIG_LOGS/$1.xml" && virsh -q define "$RIG_LOGS/$1.xml"
}

# guest_run [-t SECONDS] NAME COMMAND: runs a shell command in the guest, prints its output, returns its status
guest_run() { "$VMFABRIC_RIG/guest-run" "$@"; }

# wait_lease NAME [SECONDS [NIC]]: waits for the guest's first lease (default 30 s, eth0), prints its GUEST-LEASE line
wait_lease() {
  local log=$RIG_LOGS/$1.log nic=${3-eth0}
  wait_for "${2-30}" grep -q "GUEST-LEASE $nic " "$log" ||
    { echo "$1: no lease on $nic in ${2-30} s; its console:" >&2; tail -n 20 "$log" >&2; return 1; }
  grep -a "GUEST-LEASE $nic " "$log" | tail -n 1 | tr -d '\r'
}

# lease_field LINE FIELD: e.g. `lease_field "$(wait_lease web)" domain`
lease_field() { sed -n "s/.* $2=\([^ ]*\).*/\1/p" <<<"$1"; }

# guest_ip NAME [NIC]: the address of the guest's latest lease
guest_ip() {
  local line
  line=$(wait_lease "$1" 30 "${2-eth0}") && lease_field "$line" ip | cut -d/ -f1
}

# --- the world outside -----------------------------------------------------------------------------------------------

# internet_host [NAMESPACE]: a host 203.0.113.2 in a network namespace (default `internet`) behind this host's NIC
# `uplink` (203.0.113.1/24, default route). It tells TCP clients on port 7000 their address and logs it in
# $RIG_LOGS/NAMESPACE.peers; resolves www.internet.test to itself; and is this host's upstream DNS server.
internet_host() {
  local name=${1-internet}
  ip netns add "$name" &&
    ip link add uplink type veth peer name eth0 netns "$name" &&
    ip addr add 203.0.113.1/24 dev uplink && ip link set uplink up &&
    ip -n "$name" link set lo up && ip -n "$name" addr add 203.0.113.2/24 dev eth0 &&
    ip -n "$name" link set eth0 up && ip route add default via 203.0.113.2 || return
  : >"$RIG_LOGS/$name.peers"
  ip netns exec "$name" "$VMFABRIC_RIG/peer-server" 7000 "$RIG_LOGS/$name.peers" >"$RIG_LOGS/$name.log" 2>&1 &
  ip netns exec "$name" dnsmasq --keep-in-foreground --conf-file=/dev/null --no-hosts --no-resolv --bind-interfaces \
    --listen-address=203.0.113.2 --address=/www.internet.test/203.0.113.2 --pid-file= --user=root \
    >"$RIG_LOGS/$name.dns.log" 2>&1 &
  rm -f /etc/resolv.conf # it may be a link out of /etc
  echo "nameserver 203.0.113.2" >/etc/resolv.conf
  wait_for 10 ip netns exec "$name" "$VMFABRIC_RIG/tcp-open" 203.0.113.2 7000 &&
    wait_for 10 getent ahostsv4 www.internet.test || { echo "the internet host did not come up" >&2; return 1; }
  : >"$RIG_LOGS/$name.peers"
}
