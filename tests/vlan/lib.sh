# shellcheck shell=bash
# lib.sh: what the VLAN tests share. A guest is a namespace; the host end of its veth plays the tap, and the daemon is told
# of it as libvirt's hook would.
. "${VMFABRIC_RIG:?run me by: cargo test --test hosts vlan:: -- --ignored}/lib.sh"

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
BRIDGE=vmf-lan # of the physical network `lan`
passed=0 failed=0

# check TEXT COMMAND...: one line; the command's output is shown when it fails
check() {
  local text=$1 output
  shift
  if output=$("$@" 2>&1); then
    passed=$((passed + 1))
    echo "ok    $text"
  else
    failed=$((failed + 1))
    echo "FAIL  $text"
    sed 's/^/          /' <<<"$output"
  fi
}

# stage TEXT COMMAND...: what the checks rest on
stage() {
  local text=$1
  shift
  "$@" || { echo "FAIL  $text"; failed=$((failed + 1)); finish; }
}

finish() {
  [ $failed = 0 ] && [ $passed != 0 ] && { echo "$passed checks passed"; exit 0; }
  echo "--- vmfabricd's log"
  tail -n 40 "$RIG_LOGS/vmfabricd.log"
  { echo "--- state"; ip -br link; bridge vlan show; nft list table bridge vmfabric; vmfabric status; vmfabric plan; } 2>&1 | head -n 150
  echo "$failed of $((passed + failed)) checks failed"
  exit 1
}

# says TEXT COMMAND...: the command fails, and its output has TEXT (a regular expression)
says() {
  local text=$1 output
  shift
  output=$("$@" 2>&1) && { echo "it succeeded: $output"; return 1; }
  grep -E "$text" <<<"$output" || { echo "not /$text/ but: $output"; return 1; }
}

# shows TEXT COMMAND...: the command's output has TEXT, in 30 s at the latest
shows() {
  local text=$1
  shift
  wait_for 30 eval "$(printf '%q ' "$@") 2>&1 | grep -E -- $(printf %q "$text")" || { echo "not /$text/ but:"; "$@"; return 1; }
}

# same EXPECTED COMMAND...: the command prints just that, in 30 s at the latest
same() {
  local expected=$1
  shift
  wait_for 30 eval "[ \"\$($(printf '%q ' "$@"))\" = $(printf %q "$expected") ]" ||
    { echo "expected: $expected"; echo "got:      $("$@")"; return 1; }
}

# --- hosts -------------------------------------------------------------------------------------------------------------

# start_host [LINE...]: vmfabric installed and running, with these lines in its configuration
start_host() {
  install_vmfabric && start_bus && configure "$@" && start_vmfabricd
}

configure() { mkdir -p /etc/vmfabric && printf '%s\n' "$@" >/etc/vmfabric/vmfabricd.toml; }

# The physical network `lan` on eth1.
LAN=('[physical_networks.lan]' 'interface = "eth1"' 'vlans = "10-99"')

# wire [NAMESPACE]: eth1, cabled to `wire` in the namespace (default `outside`)
wire() {
  local ns=${1-outside}
  ip netns list | grep -q "^$ns\b" || ip netns add "$ns" || return
  ip link add eth1 type veth peer name wire address 02:00:00:00:01:01 netns "$ns" && ip -n "$ns" link set wire up && ip link set eth1 up
}

# outside_vlan VID CIDR: the world beyond the uplink has this address on that VLAN
outside_vlan() {
  ip -n outside link add "wire.$1" link wire type vlan id "$1" &&
    ip -n outside addr add "$2" dev "wire.$1" && ip -n outside link set "wire.$1" up
}

idle() { wait_for 30 vmfabric plan || { vmfabric plan; return 1; }; } # there is nothing to do

# --- guests ------------------------------------------------------------------------------------------------------------

# mac_of NAME: a MAC address that follows from the name
mac_of() { printf '52:54:00:%s' "$(md5sum <<<"$1" | sed 's/\(..\)\(..\)\(..\).*/\1:\2:\3/')"; }
uuid_of() { md5sum <<<"$1" | sed 's/^\(........\)\(....\)\(....\)\(....\)\(............\).*/\1-\2-\3-\4-\5/'; }

# definition NAME ATTRIBUTES: the XML that libvirt's hook would get. ATTRIBUTES: of the metadata, `network='v10'` say
definition() {
  cat <<X
<domain type='qemu' id='1'><name>$1</name><uuid>$(uuid_of "$1")</uuid>
  <metadata><vmfabric:domain xmlns:vmfabric='https://vmfabric.org/xmlns/domain/1.0'>
    <vmfabric:interface mac='$(mac_of "$1")' $2/></vmfabric:domain></metadata>
  <devices><interface type='bridge'><mac address='$(mac_of "$1")'/><source bridge='${GUEST_BRIDGE-$BRIDGE}'/>
    <target dev='$1'/></interface></devices>
</domain>
X
}

hook() { definition "$1" "$3" | vmfabric-hook qemu "$1" "$2" begin -; } # NAME OPERATION ATTRIBUTES

# machine NAME [CIDR]: the namespace and its NIC eth0; the tap, which has libvirt's kind of address, is not on any bridge
machine() {
  ip netns add "$1" && ip link add "$1" address "fe:$(mac_of "$1" | cut -d: -f2-)" type veth peer name eth0 netns "$1" &&
    ip -n "$1" link set lo up && ip -n "$1" link set eth0 address "$(mac_of "$1")" || return
  [ -z "${2-}" ] || ip -n "$1" addr add "$2" dev eth0 || return
  ip -n "$1" link set eth0 up
}

# guest NAME ATTRIBUTES [CIDR]: started as libvirt starts one: `prepare`, the tap on the bridge and up, `start`
guest() {
  hook "$1" prepare "$2" && machine "$1" "${3-}" && ip link set "$1" master "${GUEST_BRIDGE-$BRIDGE}" up && hook "$1" start "$2"
}

# gone NAME: the guest's tap goes, as when it stops
gone() { ip link delete "$1" && ip netns delete "$1"; }

pings() { ip netns exec "$1" ping -q -c 3 -i 0.2 -W 5 "$2"; } # NAME ADDRESS
silent() { ! ip netns exec "$1" ping -q -c 2 -i 0.2 -W 1 "$2" >/dev/null; }

# --- captures ----------------------------------------------------------------------------------------------------------

# capture NAMESPACE NIC...: what is seen there from now on
capture() {
  local ns=$1 nic
  shift
  for nic; do
    rm -f "$RIG_LOGS/$ns.$nic".{pcap,tcpdump}
    # Not promiscuous mode alone: what the NIC sends is seen too.
    ip netns exec "$ns" tcpdump -Z root --immediate-mode -U -n -i "$nic" -w "$RIG_LOGS/$ns.$nic.pcap" \
      2>"$RIG_LOGS/$ns.$nic.tcpdump" &
    echo $! >"$RIG_LOGS/$ns.$nic.capture"
    wait_for 20 grep -q 'listening on' "$RIG_LOGS/$ns.$nic.tcpdump" || { cat "$RIG_LOGS/$ns.$nic.tcpdump"; return 1; }
  done
}

# Ends all captures, each when it has seen a last frame that its own NIC sends: it has seen all before that, too.
end_captures() {
  local file ns nic
  for file in "$RIG_LOGS"/*.capture; do
    ns=${file##*/} ns=${ns%%.*} nic=${file#*/"$ns".} nic=${nic%.capture} nic=${nic##*/$ns.}
    wait_for 20 eval "send $ns $nic 02:00:00:00:00:ee end-of-capture && grep -aq end-of-capture '$RIG_LOGS/$ns.$nic.pcap'" ||
      { echo "the capture on $nic of $ns saw nothing"; return 1; }
    kill -INT "$(cat "$file")"
    wait "$(cat "$file")"
    rm "$file"
  done
}

# send NAMESPACE NIC DESTINATION TEXT [VID]: one frame with this text in it
send() { ip netns exec "$1" "$HERE/send-frame" "${@:2}"; }

# saw NAMESPACE NIC TEXT, unseen NAMESPACE NIC TEXT: in the last capture there
saw() { grep -aq -- "$3" "$RIG_LOGS/$1.$2.pcap" || { tcpdump -nner "$RIG_LOGS/$1.$2.pcap" 2>&1 | tail; return 1; }; }
unseen() { ! saw "$@" >/dev/null || { tcpdump -nner "$RIG_LOGS/$1.$2.pcap" 2>&1 | tail; return 1; }; }

# tags NAMESPACE NIC TEXT: the VLANs of the frames with this text, `none` for untagged ones, each once
tags() {
  tcpdump -nneAr "$RIG_LOGS/$1.$2.pcap" 2>/dev/null |
    awk -v text="$3" '/ ethertype /{ tag = "none"; if (match($0, /vlan [0-9]+/)) tag = substr($0, RSTART + 5, RLENGTH - 5) }
      index($0, text) { print tag }' | sort -u | paste -sd' '
}

# uplink_vlans [NIC]: VLANs of the uplink, `1u` for the one that is untagged
uplink_vlans() {
  bridge -j vlan show dev "${1-eth1}" | python3 -c '
import json, sys
ports = json.load(sys.stdin)
def vids(v):
    mark = "u" if "Egress Untagged" in v.get("flags", []) and "PVID" in v.get("flags", []) else ""
    return [f"{vid}{mark}" for vid in range(v["vlan"], v.get("vlanEnd", v["vlan"]) + 1)]
print(" ".join(vid for port in ports for v in port["vlans"] for vid in vids(v)))'
}
