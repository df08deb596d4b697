#!/bin/bash
# forwarding.sh: the forwarding of links that are not ours is on while guests need it, and then what it was. No libvirt.
. "$(dirname "$0")/checks.sh"
install_vmfabric && start_bus || finish
DB=/var/lib/vmfabric/vmfabric.db
for link in wan0 wan1 tun0 idle; do ip link add $link type veth peer name $link-peer && ip link set $link up; done
ip addr add 203.0.113.1/24 dev wan0
ip addr add 198.51.100.1/24 dev wan1
for link in wan0-peer wan1-peer; do ip link set $link up; done
forwarding() { cat "/proc/sys/net/ipv4/conf/$1/forwarding"; }
set_forwarding() { echo "$2" >"/proc/sys/net/ipv4/conf/$1/forwarding"; }
for link in all default wan0 wan1 idle; do set_forwarding $link 0; done
set_forwarding tun0 1
ip route add default via 203.0.113.2
is() { [ "$(forwarding "$1")" = "$2" ] || { echo "$1: $(forwarding "$1"), not $2"; return 1; }; } # LINK VALUE
remembered() { # LINK: what the store remembers; fails where it does not
  python3 - "$1" <<'P'
import sqlite3, sys
db = sqlite3.connect("file:/var/lib/vmfabric/vmfabric.db?mode=ro", uri=True)
row = db.execute("SELECT value FROM memo WHERE key = ?", (f"sysctl:net/ipv4/conf/{sys.argv[1]}/forwarding",)).fetchone()
print(row[0]) if row else sys.exit(1)
P
}
forgotten() { ! remembered "$1"; }
# All but libvirt's part, without libvirt.
cleaned_up() { fails_saying "libvirt keeps our networks" vmfabricd --clean-up; }
untouched() { is all 0 && is default 0 && is idle 0; }
config() { mkdir -p /etc/vmfabric && printf '%s\n' "$@" >/etc/vmfabric/vmfabricd.toml; }

# killed_as_it_changes: the daemon starts, and is killed the moment wan0 forwards; whether wan0's former setting was on disk
killed_as_it_changes() {
  python3 - <<'P'
import os, signal, subprocess, sys, time
log = open("/run/rig/vmfabricd.log", "ab")
daemon = subprocess.Popen(["/usr/sbin/vmfabricd"], stdout=log, stderr=log)
deadline = time.monotonic() + 60
while open("/proc/sys/net/ipv4/conf/wan0/forwarding").read() != "1\n":
    if time.monotonic() > deadline or daemon.poll() is not None:
        sys.exit("wan0 does not forward")
daemon.send_signal(signal.SIGKILL)
daemon.wait()
P
  [ $? = 0 ] && [ "$(remembered wan0)" = 0 ]
}
for round in 1 2 3 4 5 6 7 8; do
  set_forwarding wan0 0
  check "killed as it changes wan0 ($round): what wan0 had is on disk" killed_as_it_changes
  check "--clean-up gives it back" eval 'cleaned_up && is wan0 0'
  check "and forgets it" forgotten wan0
  rm -f $DB*
done

need "the daemon starts" start_vmfabricd
check "wan0 forwards" eventually is wan0 1
check "its former setting is remembered" eval '[ "$(remembered wan0)" = 0 ]'
check "nothing else was touched" untouched
check "nothing is remembered of what was not changed" eval 'forgotten wan1 && forgotten idle && forgotten tun0'
check "the daemon is killed" stop_vmfabricd KILL
check "wan0 forwards: guests go on" is wan0 1
check "it starts" start_vmfabricd
check "its first plan is empty" plan_is_empty
check "wan0's former setting is still remembered" eval '[ "$(remembered wan0)" = 0 ]'
check "nobody needs forwarding any more" vmfabric subnet set nat forward=none
check "wan0 has its former setting" eventually is wan0 0
check "it is remembered no more" eventually forgotten wan0
check "the plan is empty" eventually plan_is_empty
check "it is needed again" vmfabric subnet set nat forward=nat
check "wan0 forwards" eventually is wan0 1
check "the default route moves to wan1" ip route replace default via 198.51.100.2
check "wan1 forwards" eventually is wan1 1
check "wan0 has its former setting" eventually is wan0 0
check "wan0's is remembered no more, wan1's is" eval 'eventually forgotten wan0 && [ "$(remembered wan1)" = 0 ]'

config '[forwarding]' 'egress = ["tun0", "wan0"]'
check "two more ways out, by a reload" kill -HUP "$VMFABRICD_PID"
check "both forward" eventually eval 'is wan0 1 && is tun0 1'
check "one did before, and needs no memory" eval '[ "$(remembered wan0)" = 0 ] && forgotten tun0'
config ''
check "they are taken away, with the daemon dead" eval 'stop_vmfabricd KILL; start_vmfabricd'
check "each is what it was" eventually eval 'is wan0 0 && is tun0 1'
check "and not remembered" eventually eval 'forgotten wan0 && forgotten tun0'

check "the link goes" ip link delete wan1
check "it is remembered no more" eventually forgotten wan1
ip link add wan1 type veth peer name wan1-peer && ip addr add 198.51.100.1/24 dev wan1 && ip link set wan1 up && ip link set wan1-peer up
set_forwarding wan1 1
check "it comes back, forwarding by its administrator's will" ip route replace default via 198.51.100.2
check "the network is deleted" eval 'eventually plan_is_empty && vmfabric network delete nat'
check "it stays as it was" eval 'eventually plan_is_empty && is wan1 1 && forgotten wan1'

set_forwarding wan1 0
check "a network is made" eval 'vmfabric network create lab && vmfabric subnet create lab 10.9.0.0/24 --forward routed'
check "wan1 forwards" eventually is wan1 1
check "the daemon is killed" stop_vmfabricd KILL
check "--clean-up" cleaned_up
check "all is what it was" eval 'is wan0 0 && is wan1 0 && is tun0 1 && untouched'
check "nothing is remembered" forgotten wan1
set_forwarding wan1 1
check "the administrator switches it on, and the daemon comes back" start_vmfabricd
check "the network goes" eval 'vmfabric network delete lab && eventually plan_is_empty'
check "the administrator's will stands" is wan1 1
check "what was remembered before the host was booted says nothing of it now" eval 'stop_vmfabricd && python3 - <<P
import sqlite3
db = sqlite3.connect("'$DB'")
db.execute("INSERT INTO memo VALUES (\"sysctl:net/ipv4/conf/wan1/forwarding\", \"0\")")
db.execute("UPDATE memo SET value = \"another\" WHERE key = \"boot\"")
db.commit()
P
  start_vmfabricd && eventually plan_is_empty && is wan1 1 && forgotten wan1'
finish
