#!/bin/bash
# bad-input.sh: what is wrong around the daemon is said, with what to do, and nothing is lost.
. "$(dirname "$0")/checks.sh"
log=$RIG_LOGS/vmfabricd.log db=/var/lib/vmfabric/vmfabric.db
install_vmfabric && start_bus || finish

ends_saying() { # WORDS COMMAND...: ends by itself within LONG
  fails_saying "$1" timeout $LONG "${@:2}"
}
check "not root" ends_saying "must run as root|systemctl start vmfabricd" setpriv --reuid 65534 --clear-groups /usr/sbin/vmfabricd
echo '[dns]
upstream = ["here"]' >/etc/vmfabric/vmfabricd.toml
check "a configuration that is wrong" ends_saying "/etc/vmfabric/vmfabricd.toml:2: dns.upstream" /usr/sbin/vmfabricd
rm /etc/vmfabric/vmfabricd.toml

need "vmfabricd is up" start_vmfabricd
need "libvirtd is up" start_libvirt
wait_for $LONG network_active nat
check "a second daemon" ends_saying "in use by another process" /usr/sbin/vmfabricd
check "the first is none the worse" eval 'vmfabric status && [ -S /run/vmfabric/hook.sock ]'
define_guest web 52:54:00:90:00:01 network=nat
need "guests start" virsh start web
check "and have leases" has_lease web

echo 'colour = "red"' >/etc/vmfabric/vmfabricd.toml
kill -HUP "$VMFABRICD_PID"
check "a configuration that is wrong at reload: named by file, line and key" \
  eventually grep "/etc/vmfabric/vmfabricd.toml:1: colour" "$log"
check "the daemon stays" vmfabric status
check "the guest reaches its gateway" pings web 192.168.123.1
rm /etc/vmfabric/vmfabricd.toml
kill -HUP "$VMFABRICD_PID"
check "a good one is taken up" eventually grep "configuration taken up" "$log"

ip link add br-taken type bridge && ip addr add 10.55.0.1/24 dev br-taken && ip link set br-taken up
check "a subnet that overlaps a NIC of the host" \
  fails_saying "10.55.0.0/24|br-taken" eval 'vmfabric network create over && vmfabric subnet create over 10.55.0.0/25 --forward nat'
check "a subnet that overlaps another of ours" fails_saying "192.168.123.0/24" \
  vmfabric subnet create over 192.168.123.128/25 --forward nat
vmfabric network delete over

# A server of somebody else's, on all addresses: it must be there before ours.
others_server() { # PORT DNSMASQ-OPTION...
  local port=$1
  shift
  dnsmasq --keep-in-foreground --conf-file=/dev/null --no-hosts --no-resolv --pid-file= --user=root "$@" \
    >"$RIG_LOGS/dnsmasq.log" 2>&1 &
  other=$!
  wait_for 20 eval 'ss -lun | grep -q "0.0.0.0:$port "'
}
mac=52:54:00:90:00:02
define_guest waits $mac network=nat
stop_vmfabricd
check "another DNS server is on port 53" others_server 53
check "the daemon starts" start_vmfabricd
check "status says so, and what to do" eventually problem_says "53.*ss -lntup.*stop it"
vmfabric status | sed -n '/^problems/,$s/^/                 /p'
check "a guest starts, and has a lease" eval 'virsh start waits && has_lease waits'
kill $other
check "when the other ends, all is well" eventually vmfabric status
check "and names resolve" eventually guest_run waits "nslookup -type=a web.nat.internal 192.168.123.1"
virsh -q destroy waits

stop_vmfabricd
check "another DHCP server is on port 67" others_server 67 --port=0 --dhcp-leasefile=/run/rig/dnsmasq.leases \
  --dhcp-range=10.57.0.10,10.57.0.20
check "the daemon starts" start_vmfabricd
check "status says so, and what to do" eventually problem_says "67.*dnsmasq.*stop it"
vmfabric status | sed -n '/^problems/,$s/^/                 /p'
kill $other
check "when the other ends, all is well" eventually vmfabric status
check "guests start" virsh start waits
check "and have leases" wait_for $LONG eval '[ "$(grep -c GUEST-LEASE "$RIG_LOGS/waits.log")" = 2 ]'
virsh -q destroy waits

to_hook() { # the answer to what stdin says
  python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX); s.settimeout(40); s.connect("/run/vmfabric/hook.sock")
try:
    s.sendall(sys.stdin.buffer.read()); s.shutdown(socket.SHUT_WR)
except BrokenPipeError: pass
try: print(s.makefile("rb").read(2000))
except ConnectionResetError: print("reset")'
}
head='{"driver":"qemu","object":"x","operation":"start","sub_operation":"begin"}'
check "garbage to the hook's socket" eval 'head -c 100000 /dev/urandom | to_hook'
check "nothing to the hook's socket" eval 'to_hook </dev/null'
check "no XML" eval 'echo "$head" | to_hook | tee /dev/stderr | grep -q refuse'
check "XML that is broken" eval 'printf "%s\n<domain><name>x</name><uui" "$head" | to_hook | tee /dev/stderr | grep -q refuse'
check "XML of another kind" eval 'printf "%s\n<pool/>" "$head" | to_hook | tee /dev/stderr | grep -q refuse'
check "too much" eval '{ echo "$head"; head -c 20000000 /dev/zero; } | to_hook'
check "a billion laughs" eval '{ echo "$head"; echo "<!DOCTYPE d [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">]><domain><name>&b;</name></domain>"; } | to_hook'
check "the hook itself, with broken XML of another guest" eval \
  'echo "<domain" | /etc/libvirt/hooks/qemu.d/vmfabric x started begin - && ! echo "<domain" | /etc/libvirt/hooks/qemu.d/vmfabric x start begin -'
check "the socket is root's alone" eval '[ "$(stat -c %a:%U /run/vmfabric/hook.sock)" = 600:root ]'
check "others cannot speak to it" fails_saying PermissionError setpriv --reuid 65534 --clear-groups \
  /usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect("/run/vmfabric/hook.sock")'
check "the daemon is there" vmfabric status
check "the guest reaches its gateway" pings web 192.168.123.1
check "a guest starts" eval 'virsh destroy web && virsh start web'
check "and has a lease" wait_for $LONG eval '[ "$(grep -c GUEST-LEASE "$RIG_LOGS/web.log")" = 2 ]'

stop_vmfabricd
cp "$db" /run/rig/good.db
head -c 8192 /dev/urandom >"$db"
rm -f "$db"-wal "$db"-shm
check "a store that is damaged" ends_saying "$db|is damaged|restore it from a backup" /usr/sbin/vmfabricd
check "nothing is done to it" eval '[ "$(stat -c %s $db)" = 8192 ]'
check "the guest reaches its gateway" pings web 192.168.123.1
cp /run/rig/good.db "$db"
check "restored, the daemon starts" start_vmfabricd
check "the plan is empty" eventually plan_is_empty
check "the guest's port is active" eventually port_is 52:54:00:90:00:01 status active

stop_vmfabricd
cp -a /var/lib/vmfabric /run/rig/state
need "a small disk with its state" eval 'mount -t tmpfs -o size=4m,mode=755 tmpfs /var/lib/vmfabric && cp -a /run/rig/state/. /var/lib/vmfabric/'
check "the daemon starts on a small disk" start_vmfabricd
dd if=/dev/zero of=/var/lib/vmfabric/fill bs=4k 2>/dev/null
fills() { local n; for n in $(seq 200); do vmfabric network create n$n >/run/rig/full.out 2>&1 || break; done; cat /run/rig/full.out; }
check "a full disk is said, and what to do" eval 'fills | tee /dev/stderr | grep -q "disk that holds $db is full; free some space"'
check "the guest reaches its gateway" pings web 192.168.123.1
define_guest full 52:54:00:90:00:03 network=nat
check "a guest that needs a new port does not start, and says why" fails_saying "full" virsh start full
check "the daemon says that it is there" eval 'vmfabric status || [ $? = 7 ]'
rm /var/lib/vmfabric/fill
check "with space, a network is made" vmfabric network create roomy
check "and the guest starts" virsh start full
check "and has a lease" has_lease full
check "the plan is empty" eventually plan_is_empty
finish
