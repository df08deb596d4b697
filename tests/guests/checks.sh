# shellcheck shell=bash
# checks.sh: what the scripts of tests/guests share. Source it; call `finish` at the end.
. "${VMFABRIC_RIG:?run me by: cargo test -- --ignored}/lib.sh"
began=$EPOCHREALTIME passed=0 failed=0
# How long a thing may take while others load the machine.
LONG=${LONG-60}

elapsed() { awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $began }"; }

# check TEXT COMMAND...: a line of the report; the command's output is shown when it fails
check() {
  local text=$1 output=$RIG_LOGS/check.out status
  shift
  "$@" >"$output" 2>&1 # in this shell: what it sets stays
  status=$?
  if [ $status = 0 ]; then
    passed=$((passed + 1))
    printf '%6s s  ok    %s\n' "$(elapsed)" "$text"
    return
  fi
  failed=$((failed + 1))
  printf '%6s s  FAIL  %s\n' "$(elapsed)" "$text"
  tail -n 40 "$output" | sed 's/^/                 /'
  return $status
}

# need TEXT COMMAND...: a check without which the rest says nothing
need() { check "$@" || finish; }

finish() {
  if [ $failed = 0 ] && [ $passed -gt 0 ]; then
    echo "$passed checks passed"
    exit 0
  fi
  local log
  for log in "$RIG_LOGS"/*.log; do
    [ -s "$log" ] || continue
    echo "--- the end of ${log##*/}"
    grep -av '^@' "$log" | tail -n 40
  done
  { echo "--- the host"; ip -br link; vmfabric status; vmfabric port list; vmfabric lease list; vmfabric plan; } 2>&1
  echo "$failed of $((passed + failed)) checks failed"
  exit 1
}

# stage: everything up, and the network `nat` in libvirt
stage() {
  install_vmfabric && start_bus && start_vmfabricd && start_libvirt && wait_for $LONG network_active nat && return
  echo "the stage could not be set"
  finish
}

network_active() { virsh net-info "$1" | grep -q '^Active: *yes'; }

# port MAC FIELD: of `vmfabric port show`; fails where there is no such port
port() {
  local json
  json=$(vmfabric --json port show "$1") || return
  python3 -c 'import json, sys; v = json.load(sys.stdin)[sys.argv[1]]; print(" ".join(v) if isinstance(v, list) else v)' \
    "$2" <<<"$json"
}

port_is() { [ "$(port "$1" "$2")" = "$3" ] || { vmfabric port list; return 1; }; } # MAC FIELD VALUE
no_port() { vmfabric port show "$1"; [ $? = 3 ]; }                                # MAC
tap_of() { virsh domiflist "$1" | awk -v mac="$2" '$5 == mac { print $1 }'; }      # GUEST MAC

# bound TAP: the tap is marked as ours, and may speak on its bridge where the kernel can tell
bound() {
  ip link show dev "$1" | grep -q 'alias vmfabric:port/' || { ip link show dev "$1"; return 1; }
  deny_by_default || return 0
  nft list table bridge vmfabric | grep -q "\"$1\"" || { echo "$1 is not in the set of bound ports"; return 1; }
}
deny_by_default() { vmfabric --json status | grep -q '"nft_bridge_meta": true'; }

# nothing_bound: no tap of ours, and none that may speak
nothing_bound() {
  ! ip link | grep 'alias vmfabric:port/' || return
  ! deny_by_default || ! nft list table bridge vmfabric | grep '"vnet'
}

plan_is_empty() { vmfabric plan; } # exits with 8 when there is something to do
eventually() { wait_for $LONG "$@" || "$@"; } # COMMAND...; its last output is shown when time runs out

running() { [ "$(virsh domstate "$1")" = running ]; }
stopped() { [ "$(virsh domstate "$1")" = 'shut off' ]; }
libvirt_is() { vmfabric --json status | grep -q "\"status\": \"$1\""; } # connected, disconnected
problem_says() { vmfabric status | grep -q "$1" || { vmfabric status; return 1; }; }

# fails_saying WORDS COMMAND...: the command fails, and its output has each of the WORDS (separated by |)
fails_saying() {
  local words=$1 output word
  shift
  if output=$("$@" 2>&1); then
    echo "it did not fail: $output"
    return 1
  fi
  echo "$output"
  while read -rd '|' word; do
    grep -qF -- "$word" <<<"$output" || { echo "it does not say: $word"; return 1; }
  done <<<"$words|"
}

# within SECONDS COMMAND...: its own status, or 1 when it took longer
within() {
  local seconds=$1 from=${EPOCHREALTIME/./} status
  shift
  "$@"
  status=$?
  [ $((${EPOCHREALTIME/./} - from)) -le $((seconds * 1000000)) ] ||
    { echo "it took $(((${EPOCHREALTIME/./} - from) / 1000)) ms"; return 1; }
  return $status
}

pings() { guest_run "$1" "ping -c 2 -i 0.3 -W 5 $2"; } # GUEST ADDRESS

# lease_of GUEST SECONDS [NIC]: the lease is there
has_lease() { wait_lease "$1" "${2-$LONG}" "${3-eth0}"; }
