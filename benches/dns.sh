#!/bin/bash
# dns.sh: what a DNS answer costs: vmfabricd, dnsmasq as libvirt configures it, and unbound with one thread, in one run,
# each on a bridge of its own with a guest behind it (in namespaces of their own: two DHCP servers do not share a
# host). Runs in a private host; `make bench-dns` does that.
. "${VMFABRIC_RIG:?run me by: make bench-dns}/lib.sh"
set -u
NAMES=1000              # of each kind
RATE=${BENCH_RATE:-20000} # questions a second where CPU is measured
SECONDS_EACH=${BENCH_SECONDS:-5}
NETWORKS=${BENCH_NETWORKS:-200}
W=/run/rig/bench
mkdir -p $W

# guest NAME BRIDGE ADDRESS [HOST]: a namespace with a NIC on a bridge of a host, of this one by default
guest() {
  local at=${4:+-n $4}
  ip netns add "$1" && ip $at link add "h-$1" type veth peer name eth0 netns "$1" &&
    ip $at link set "h-$1" master "$2" up && ip -n "$1" link set lo up && ip -n "$1" addr add "$3" dev eth0 &&
    ip -n "$1" link set eth0 up
}

# cpu PID: nanoseconds that all its threads had the CPU
cpu() { cat /proc/"$1"/task/*/schedstat 2>/dev/null | awk '{ n += $1 } END { printf "%.0f", n }'; }

# memory PID...: KiB that these processes take, what they share divided among them (PSS), and counted in each (RSS)
memory() { local p; for p; do cat /proc/"$p"/smaps_rollup; done 2>/dev/null | awk '/^Pss:/ { p += $2 } /^Rss:/ { r += $2 } END { printf "%.0f %.0f", p, r }'; }

# field FILE TEXT: a number of dnsperf's report
field() { sed -n "s/^ *$2: *\([0-9.]*\).*/\1/p" "$1"; }

declare -A rated full rate latency lost
# less NAME KEY VALUE, more …: keeps the least, or the most, of all rounds: what else the machine does only adds
less() { local -n kept=$1; [ -n "${kept[$2]-}" ] && [ "$(awk "BEGIN { print ($3 >= ${kept[$2]}) }")" = 1 ] || kept[$2]=$3; }
more() { local -n kept=$1; [ -n "${kept[$2]-}" ] && [ "$(awk "BEGIN { print ($3 <= ${kept[$2]}) }")" = 1 ] || kept[$2]=$3; }

# measure LABEL GUEST SERVER PID QUESTIONS: one round
measure() {
  local label=$1 guest=$2 server=$3 pid=$4 questions=$5 out=$W/out before
  ip netns exec "$guest" dnsperf -s "$server" -d "$questions" -n 1 -q 50 >/dev/null 2>&1 # warm
  before=$(cpu "$pid")
  ip netns exec "$guest" dnsperf -s "$server" -d "$questions" -l "$SECONDS_EACH" -Q "$RATE" -q 500 >$out 2>&1
  less rated "$label" "$(awk "BEGIN { print ($(cpu "$pid") - $before) / $(field $out "Queries completed") / 1000 }")"
  grep -q "NOERROR.*100.00%" $out || { echo "wrong answers: $label"; grep -v Timeout $out; exit 1; }
  less lost "$label" "$(sed -n 's/.*Queries lost: *[0-9]* (\(.*\)%).*/\1/p' $out)"
  before=$(cpu "$pid")
  ip netns exec "$guest" dnsperf -s "$server" -d "$questions" -l "$SECONDS_EACH" -q 200 -c 4 >$out 2>&1
  less full "$label" "$(awk "BEGIN { print ($(cpu "$pid") - $before) / $(field $out "Queries completed") / 1000 }")"
  more rate "$label" "$(field $out "Queries per second")"
  ip netns exec "$guest" dnsperf -s "$server" -d "$questions" -l 1 -Q 100 >$out 2>&1
  less latency "$label" "$(awk "BEGIN { print $(field $out "Average Latency (s)") * 1e6 }")"
}

questions() { # PREFIX DOMAIN
  seq 1 $NAMES | sed "s/.*/$1&.$2 A/"
}

echo "preparing: three servers, $NAMES records, $NAMES leases, 100 forwarded names each" >&2
# upstream [NAMESPACE]: answers that may be kept
upstream() {
  ${1:+ip netns exec "$1"} dnsmasq --keep-in-foreground --conf-file=/dev/null --no-hosts --no-resolv --bind-interfaces --port=5300 \
    --listen-address=127.0.0.1 --address=/internet.example/198.51.100.7 --local-ttl=86400 --cache-size=0 --pid-file= --user=root &
}
# host NAME BRIDGE ADDRESS: a namespace with a bridge, as another host
host() {
  ip netns add "$1" && ip -n "$1" link set lo up && ip -n "$1" link add "$2" type bridge && ip -n "$1" addr add "$3" dev "$2" &&
    ip -n "$1" link set "$2" up && upstream "$1"
}
upstream
install_vmfabric && start_bus || exit 1

# --- ours ------------------------------------------------------------------------------------------------------------
cat >/etc/vmfabric/vmfabricd.toml <<X
[dns]
upstream = ["127.0.0.1:5300"]
X
start_vmfabricd || exit 1
read -r bare _ < <(memory "$VMFABRICD_PID")
vmfabric network create bench >/dev/null && vmfabric subnet create bench 10.77.0.0/16 --forward routed >/dev/null || exit 1
network=$(vmfabric --json network show bench | sed -n 's/^  "id": "\(.*\)",/\1/p' | head -n 1)
records=()
for n in $(seq 1 $NAMES); do records+=("h$n A 10.77.$((n / 250 + 100)).$((n % 250 + 1))"); done
busctl -q call org.vmfabric1 "/org/vmfabric1/network/${network//-/}" org.vmfabric1.Network Update 'a{sv}' 1 \
  dns_records as $NAMES "${records[@]}" || exit 1
stop_vmfabricd
NAMES=$NAMES NETWORK=$network python3 - <<'X' || exit 1
import os, sqlite3, time
db = sqlite3.connect("/var/lib/vmfabric/vmfabric.db")
columns = {row[1] for row in db.execute("PRAGMA table_info(lease)")}
for n in range(1, int(os.environ["NAMES"]) + 1):
    mac = "52:54:00:10:%02x:%02x" % (n >> 8, n & 255)
    row = {"network_id": os.environ["NETWORK"], "address": "10.77.%d.%d" % (n // 250 + 200, n % 250 + 1),
           "client": bytes([1]) + bytes.fromhex(mac.replace(":", "")), "mac": mac, "host_name": "l%d" % n,
           "expires": int(time.time()) + 86400}
    row = {key: value for key, value in row.items() if key in columns}
    db.execute("INSERT INTO lease (%s) VALUES (%s)" % (",".join(row), ",".join("?" * len(row))), list(row.values()))
db.commit()
X
start_vmfabricd && wait_for 20 ip link show vmf-bench || exit 1
guest ours vmf-bench 10.77.0.9/16 || exit 1

# --- dnsmasq, with what libvirt writes into its configuration ---------------------------------------------------------
host masq-host virbr-m 10.78.0.1/16 && guest masq virbr-m 10.78.0.9/16 masq-host || exit 1
now=$(date +%s)
for n in $(seq 1 $NAMES); do
  echo "10.78.$((n / 250 + 100)).$((n % 250 + 1)) h$n.bench.internal h$n" >&3
  printf '%s 52:54:00:10:%02x:%02x 10.78.%s.%s l%s *\n' $((now + 86400)) $((n / 256)) $((n % 256)) $((n / 250 + 200)) $((n % 250 + 1)) "$n" >&4
done 3>$W/addnhosts 4>$W/leases
libvirt_dnsmasq() { # INTERFACE FIRST LAST
  cat <<X
strict-order
domain=bench.internal
expand-hosts
local=/bench.internal/
except-interface=lo
bind-dynamic
interface=$1
dhcp-range=$2,$3,255.255.0.0
dhcp-no-override
dhcp-authoritative
dhcp-lease-max=65000
addn-hosts=$W/addnhosts
resolv-file=$W/resolv.conf
X
}
: >$W/resolv.conf
{ libvirt_dnsmasq virbr-m 10.78.200.1 10.78.250.254; echo "server=127.0.0.1#5300"; echo "dhcp-leasefile=$W/leases"; } >$W/dnsmasq.conf
ip netns exec masq-host dnsmasq --conf-file=$W/dnsmasq.conf --keep-in-foreground --user=root --pid-file= >$W/dnsmasq.log 2>&1 &
masq=$!

# --- unbound ---------------------------------------------------------------------------------------------------------
host unb-host virbr-u 10.79.0.1/16 && guest unb virbr-u 10.79.0.9/16 unb-host || exit 1
{
  cat <<X
server:
  num-threads: 1
  interface: 10.79.0.1
  access-control: 10.79.0.0/16 allow
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "$W"
  pidfile: ""
  use-syslog: no
  module-config: "iterator"
  do-not-query-localhost: no
  local-zone: "bench.internal." static
X
  seq 1 $NAMES | awk '{ printf "  local-data: \"h%d.bench.internal. 30 A 10.79.%d.%d\"\n", $1, int($1 / 250) + 100, $1 % 250 + 1 }'
  printf 'forward-zone:\n  name: "."\n  forward-addr: 127.0.0.1@5300\n'
} >$W/unbound.conf
ip netns exec unb-host unbound -c $W/unbound.conf -d >$W/unbound.log 2>&1 &
unb=$!

questions h bench.internal >$W/static
questions l bench.internal >$W/leased
# As many as fit into the 150 that dnsmasq keeps.
NAMES=100 questions f internet.example >$W/forwarded
answers() { ip netns exec "$1" dig +short +tries=1 +time=1 "@$2" "$3" | grep -q .; }
for who in "ours 10.77.0.1" "masq 10.78.0.1" "unb 10.79.0.1"; do
  wait_for 20 answers $who h7.bench.internal && wait_for 20 answers $who f7.internet.example || { echo "$who does not answer"; tail $W/*.log; exit 1; }
done
wait_for 20 answers ours 10.77.0.1 l7.bench.internal && wait_for 20 answers masq 10.78.0.1 l7.bench.internal || { echo "no leases"; exit 1; }

labels=()
for round in $(seq 1 "${BENCH_ROUNDS:-5}"); do
  for kind in static leased forwarded; do
    for who in "ours 10.77.0.1 $VMFABRICD_PID vmfabricd" "masq 10.78.0.1 $masq dnsmasq" "unb 10.79.0.1 $unb unbound"; do
      read -r guest server pid name <<<"$who"
      [ "$kind $guest" = "leased unb" ] && continue
      [ "$round" -gt 1 ] || labels+=("$kind: $name")
      measure "$kind: $name" "$guest" "$server" "$pid" "$W/$kind"
    done
  done
done
printf '%-24s %14s %16s %12s %12s %8s\n' "" "us CPU at ${RATE}/s" "us CPU, full load" "answers/s" "us at 100/s" "% lost"
for label in "${labels[@]}"; do
  printf '%-24s %14.2f %16.2f %12.0f %12.0f %8.2f\n' "$label" "${rated[$label]}" "${full[$label]}" "${rate[$label]}" "${latency[$label]}" "${lost[$label]}"
done
for kind in static leased forwarded; do
  for peer in dnsmasq unbound; do
    [ -n "${rated["$kind: $peer"]-}" ] || continue
    awk "BEGIN { printf \"$kind: CPU of ours / $peer: %.2f at ${RATE}/s, %.2f at full load\n\", ${rated["$kind: vmfabricd"]} / ${rated["$kind: $peer"]}, ${full["$kind: vmfabricd"]} / ${full["$kind: $peer"]} }"
  done
done
kill $masq $unb

# --- many networks ---------------------------------------------------------------------------------------------------
[ "$NETWORKS" -gt 0 ] || exit 0
echo "preparing: $NETWORKS networks" >&2
for n in $(seq 1 "$NETWORKS"); do
  vmfabric network create "n$n" >/dev/null && vmfabric subnet create "n$n" "10.$((n / 100 + 100)).$((n % 100)).0/24" --forward routed >/dev/null || exit 1
done
stop_vmfabricd
listening() { [ "$(ss -Hlnu "sport = :53" | grep -c '%vmf-')" -ge $((NETWORKS + 1)) ]; }
began=${EPOCHREALTIME/./}
/usr/sbin/vmfabricd >>"$RIG_LOGS/vmfabricd.log" 2>&1 &
VMFABRICD_PID=$!
wait_for 60 listening || { echo "not all listen"; ss -Hlnu "sport = :53" | wc -l; tail "$RIG_LOGS/vmfabricd.log"; exit 1; }
up=$((${EPOCHREALTIME/./} - began))
wait_for 60 vmfabricd_answers
read -r ours ours_rss < <(memory "$VMFABRICD_PID")
pids=()
began=${EPOCHREALTIME/./}
for n in $(seq 1 "$NETWORKS"); do
  a=10.$((n / 100 + 150)).$((n % 100))
  ip -n masq-host link add "m$n" type bridge && ip -n masq-host addr add "$a.1/24" dev "m$n" && ip -n masq-host link set "m$n" up
  { libvirt_dnsmasq "m$n" "$a.2" "$a.254" | sed "s/255.255.0.0/255.255.255.0/; /addn-hosts/d"; echo "dhcp-leasefile=$W/leases.$n"; } >"$W/m$n.conf"
  ip netns exec masq-host dnsmasq --conf-file="$W/m$n.conf" --keep-in-foreground --user=root --pid-file= >/dev/null 2>&1 &
  pids+=($!)
done
masq_listen() { [ "$(ip netns exec masq-host ss -Hlnup "sport = :53" | grep -c dnsmasq)" -ge "$NETWORKS" ]; }
wait_for 60 masq_listen || { echo 'the dnsmasqs do not listen'; exit 1; }
read -r theirs theirs_rss < <(memory "${pids[@]}")
ratio() { awk "BEGIN { printf \"%.2f\", $1 / $2 }"; }
echo
echo "$NETWORKS networks: vmfabricd $ours KiB, $NETWORKS dnsmasqs $theirs KiB: $(ratio "$ours" "$theirs") (PSS; with DHCP in both; vmfabricd before any of them $bare)"
echo "each counted by itself (RSS): $ours_rss and $theirs_rss KiB: $(ratio "$ours_rss" "$theirs_rss")"
echo "all listen $((up / 1000)) ms after the start of vmfabricd"
