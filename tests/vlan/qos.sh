#!/bin/bash
# qos.sh: rates and marks of ports, measured on real streams between two guests; and others' limits, which are left alone.
. "$(dirname "$0")/lib.sh"
BRIDGE=vmf-lab

# measured FROM TO ADDRESS [IPERF3 ARG...]: bits per second that TO received; with the burst
measured() {
  local from=$1 to=$2 address=$3
  shift 3
  ip netns exec "$to" iperf3 -s -1 -I "$RIG_LOGS/iperf.pid" >"$RIG_LOGS/iperf.$to" 2>&1 &
  wait_for 10 eval "ip netns exec $to ss -Hltn sport = :5201 | grep -q 5201" || return
  ip netns exec "$from" iperf3 -c "$address" -J "$@" >"$RIG_LOGS/iperf.json" || { cat "$RIG_LOGS/iperf.json"; return 1; }
  wait $!
  python3 -c 'import json, sys; print(int(json.load(open(sys.argv[1]))["end"]["sum_received"]["bits_per_second"]))' "$RIG_LOGS/iperf.json"
}
# about FROM TO ADDRESS MBIT: a stream, without its first two seconds (the burst), has 50 % to 115 % of that rate
about() {
  local bits
  bits=$(measured "$1" "$2" "$3" -t 3 -O 2) || { echo "$bits"; return 1; }
  echo "      $1 to $2, ${4} Mbit/s asked for: $((bits / 1000)) kbit/s" | tee -a "$RIG_LOGS/rates"
  [ "$bits" -ge $(($4 * 500000)) ] && [ "$bits" -le $(($4 * 1150000)) ]
}
faster() { # FROM TO ADDRESS MBIT
  local bits
  bits=$(measured "$1" "$2" "$3" -t 1) || { echo "$bits"; return 1; }
  echo "      $1 to $2, ${4} Mbit/s asked for: $((bits / 1000)) kbit/s" | tee -a "$RIG_LOGS/rates"
  [ "$bits" -ge $(($4 * 1000000)) ]
}
root_of() { tc qdisc show dev "$1" root; }
ingress_of() { tc qdisc show dev "$1" ingress; tc filter show dev "$1" ingress; }
status_of() { vmfabric port show "$1" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["status"])'; }
set_port() { vmfabric port set "$@"; }

METRICS=/run/vmfabric/metrics.sock
stage "vmfabricd" start_host '[metrics]' "listen = \"unix:$METRICS\""
stage "a network" vmfabric network create lab >"$RIG_LOGS/out"
stage "its subnet" vmfabric subnet create lab 10.9.0.0/24 >"$RIG_LOGS/out"
for n in 1 2; do
  name=$([ $n = 1 ] && echo ann || echo bob)
  stage "port $name" vmfabric port create lab --name "$name" --mac "$(mac_of "$name")" --address "10.9.0.1$n" >"$RIG_LOGS/out"
done
A=10.9.0.11 B=10.9.0.12
stage "a rate, before there is a guest" set_port bob rate-in=10M
# What libvirt does with a tap.
hook bob prepare "network='lab'" && machine bob $B/24 && tc qdisc add dev bob root noqueue && ip link set bob master $BRIDGE up
stage "guest bob, with the root that libvirt gives a tap" hook bob start "network='lab'"
stage "guest ann" guest ann "network='lab'" $A/24
check "a rate is there when the guest's port is up" eval 'root_of bob | grep -q "tbf 766d: .*rate 10Mbit burst 125000b\|tbf 766d: .*rate 10Mbit"'

stage "they talk" pings ann $B >"$RIG_LOGS/out"

check "to the guest: 10 Mbit/s" about ann bob $B 10
check "from it: as fast as it can" faster bob ann $A 100
check "a rate from the guest" set_port bob rate-out=10M
check "… is in the kernel" shows "police .* rate 10Mbit" ingress_of bob
check "from the guest: 10 Mbit/s" about bob ann $A 10
check "the plan is empty" idle
check "the port is active" same active status_of bob

# A burst: 500 kB at 1 Mbit/s would take 4 s.
check "a burst of 8 Mbit at 1 Mbit/s" set_port bob rate-in=1M burst-in=8M
check "… is in the kernel" shows "rate 1Mbit" root_of bob
check "… and lets 500 kB through at once" eval '[ "$(measured ann bob $B -n 500K)" -ge 4000000 ]'
check "without it, it takes its time" eval 'set_port bob burst-in= && shows "burst 1250[0-9]b|burst 124[0-9]+b" root_of bob && [ "$(measured ann bob $B -n 500K)" -le 1600000 ]'

# While a stream runs.
set_port bob rate-in=10M && shows "rate 10Mbit" root_of bob >/dev/null
ip netns exec bob iperf3 -s -1 >"$RIG_LOGS/iperf.bob" 2>&1 &
wait_for 10 eval "ip netns exec bob ss -Hltn sport = :5201 | grep -q 5201"
ip netns exec ann iperf3 -c $B -t 6 -i 1 --forceflush >"$RIG_LOGS/stream" 2>&1 &
stream=$!
wait_for 20 eval "grep -c 'sec.*bits/sec' '$RIG_LOGS/stream' | grep -qx 2"
check "a change while a stream runs" set_port bob rate-in=40M
wait $stream
felt() {
  python3 - "$RIG_LOGS/stream" <<'P'
import re, sys
text = open(sys.argv[1]).read()
rates = [float(rate) * {"K": 1e3, "M": 1e6, "G": 1e9}[unit] for rate, unit in
         re.findall(r"sec +[\d.]+ [KMG]?Bytes +([\d.]+) ([KMG])bits/sec +\d+ ", text)]
print(text)
sys.exit(not (len(rates) >= 6 and rates[1] < 14e6 and rates[4] > 25e6))
P
}
check "… is felt by that stream" felt

# scrape: the metrics, from the Unix socket
scrape() {
  python3 -c 'import http.client, socket, sys
client = http.client.HTTPConnection("localhost")
client.sock = socket.socket(socket.AF_UNIX)
client.sock.connect(sys.argv[1])
client.request("GET", "/metrics")
sys.stdout.write(client.getresponse().read().decode())' "$METRICS"
}
drops_of() { vmfabric port show "$1" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["statistics"]["drops"].get(sys.argv[1], 0))' "$2"; }

# Drops are counted, and outlive the daemon, as limits do.
ip -n bob addr add 10.9.0.99/24 dev eth0
ip netns exec bob ping -q -c 3 -i 0.2 -W 1 -I 10.9.0.99 $A >"$RIG_LOGS/out" 2>&1
ip -n bob addr del 10.9.0.99/24 dev eth0
check "drops of filters and rates are counted" eval '[ "$(drops_of bob ip)" -ge 1 ] && [ "$(drops_of bob rate_out)" -ge 1 ] && [ "$(drops_of ann ip)" = 0 ]'
check "metrics have them" eval "scrape | grep 'vmfabric_port_dropped_packets_total{network=\"lab\",port=\"bob\",reason=\"rate_out\"} [1-9]'"
spoofed=$(drops_of bob ip)
before=$(tc qdisc show dev bob; ingress_of bob)
ip netns exec ann ping -q -i 0.02 -c 150 $B >"$RIG_LOGS/ping" 2>&1 &
ping=$!
stop_vmfabricd KILL
stage "vmfabricd again" start_vmfabricd
check "a restart finds nothing to do" idle
wait $ping
check "… and lost nothing" grep -q ' 0% packet loss' "$RIG_LOGS/ping"
check "… and no count" [ "$(drops_of bob ip)" = "$spoofed" ]
check "… and left the limits as they were" [ "$before" = "$(tc qdisc show dev bob; ingress_of bob)" ]

# Somebody takes it away.
tc qdisc del dev bob root
check "what somebody takes away comes back" shows "tbf 766d:" root_of bob

check "without its rates" set_port bob rate-in= rate-out=
check "… the tap's root is as libvirt made it" shows "qdisc noqueue" root_of bob
check "… and nothing is left where its frames come in" same "" ingress_of bob
check "as fast as it can" faster ann bob $B 100

# Others' limits: as libvirt makes them of <bandwidth>.
tc qdisc add dev ann root handle 1: htb default 1 &&
  tc class add dev ann parent 1: classid 1:1 htb rate 20mbit ceil 20mbit &&
  tc qdisc add dev ann ingress &&
  tc filter add dev ann parent ffff: protocol all u32 match u32 0 0 police rate 20mbit burst 64kb drop flowid :1
others=$(tc qdisc show dev ann; tc class show dev ann; ingress_of ann)
check "rates of a port whose guest's definition has <bandwidth>" set_port ann rate-in=5M rate-out=5M
check "… are a problem of the port, in words" shows "rate of traffic to the guest is not applied.*libvirt" vmfabric port show ann
check "… in both directions" shows "rate of traffic from the guest is not applied.*rate-out=" vmfabric port show ann
check "… which is degraded, and works" eval 'same degraded status_of ann && pings ann $B'
check "… and libvirt's limits stay" [ "$others" = "$(tc qdisc show dev ann; tc class show dev ann; ingress_of ann)" ]
check "libvirt's are what is felt" about bob ann $A 20
check "it starts with them, too" eval "hook ann start \"network='lab'\""
tc qdisc del dev ann root; tc qdisc del dev ann ingress
check "when libvirt's go, the port's come" shows "rate 5Mbit" root_of ann
check "… in both directions" shows "police .* rate 5Mbit" ingress_of ann
check "… and the problem goes" same active status_of ann
# virsh domiftune: libvirt deletes and adds.
tc qdisc del dev ann root; tc qdisc add dev ann root handle 1: htb default 1
check "libvirt can put its own there again" shows "somebody else set .htb" vmfabric port show ann
tc qdisc del dev ann root
check "a port without rates keeps a filter of somebody else beside ours" eval \
  'shows "tbf 766d:" root_of ann && tc filter add dev ann ingress pref 7 matchall action continue && set_port ann rate-in= rate-out= && same "" eval "tc filter show dev ann ingress | grep police" && tc filter show dev ann ingress | grep -q "pref 7 matchall"'

# DSCP
check "a mark" set_port bob dscp=46
check "… is in the kernel" shows '"bob" : goto dscp_46' nft list map bridge vmfabric marks
capture ann eth0
pings bob $A >"$RIG_LOGS/out"
ip netns exec bob ping -q -6 -c 2 -i 0.2 "fe80::$(ip -n ann -6 -o addr show dev eth0 | sed 's/.*fe80::\([^/]*\).*/\1/')%eth0" >"$RIG_LOGS/out"
pings ann $B >"$RIG_LOGS/out"
end_captures
marked() { tcpdump -nnvr "$RIG_LOGS/ann.eth0.pcap" "$@" 2>/dev/null | grep -A1 -E 'IP6? \(' ; }
check "what the guest sends over IPv4 is marked" eval 'marked "src 10.9.0.12 and icmp" | grep -q "tos 0xb8" && ! marked "src 10.9.0.12 and icmp" | grep -q "tos 0x0,"'
check "what it is sent is not" eval 'marked "src 10.9.0.11 and icmp[0] == 8" | grep -q "tos 0x0," && ! marked "src 10.9.0.11 and icmp[0] == 8" | grep -q "tos 0xb8"'
check "what it sends over IPv6 is marked" eval 'marked "icmp6 and ether src $(mac_of bob)" | grep -q "class 0xb8"'
check "without a mark" eval 'set_port bob dscp= && same "" eval "nft list map bridge vmfabric marks | grep goto" && ! nft list chain bridge vmfabric dscp_46'
check "the plan is empty at the end" idle
configure '[metrics]' 'listen = "0.0.0.0:9177"'
kill -HUP "$VMFABRICD_PID"
check "metrics for everybody are refused, with what to do" shows "metrics.listen: 0.0.0.0:9177 is not a loopback address.*listen on 127.0.0.1:9177" cat "$RIG_LOGS/vmfabricd.log"
check "… and those that were go on" eval 'scrape | grep -q "^vmfabric_build_info"'
configure
kill -HUP "$VMFABRICD_PID"
check "without [metrics] there are none" wait_for 20 not test -e "$METRICS"
cat "$RIG_LOGS/rates"
finish
