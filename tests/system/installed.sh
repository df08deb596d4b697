#!/bin/bash
# installed.sh: the life of the package on a Debian with systemd, polkit and stock libvirt, from its installation to its
# purge, while a guest runs. On a system-vm; /rig/in has the package.
. "$VMFABRIC_RIG/../guests/checks.sh"
LONG=120 # a guest on a machine that is emulated itself
deb=$(echo /rig/in/vmfabric_*.deb)
mac=52:54:00:c0:00:01

show() { systemctl show --property="$2" --value "$1"; }
property() { [ "$(show "$1" "$2")" = "$3" ] || { echo "$1: $2 is '$(show "$1" "$2")', not '$3'"; return 1; }; } # UNIT NAME VALUE
active() { systemctl is-active --quiet vmfabricd && vmfabricd_answers; }
daemon_pid() { show vmfabricd MainPID; }
journal() { journalctl -b -u vmfabricd -o cat --no-pager "$@"; }
journal_says() { journal | grep -F -- "$1"; }
as() { local user=$1; shift; runuser -u "$user" -- "$@"; }
status_of() { local wanted=$1; shift; "$@"; [ $? = "$wanted" ]; } # STATUS COMMAND...

# --- as installed ---
check "the system is up" eval 'systemctl is-system-running --wait'
need "the package installs, with what it depends on" eval 'apt-get -qqy install "$deb" 2>&1 | tee "$RIG_LOGS/install.log"; [ "${PIPESTATUS[0]}" = 0 ]'
check "it says that libvirt has no hooks yet" grep 'systemctl restart libvirtd' "$RIG_LOGS/install.log"
check "the daemon is active" active
check "it is one that tells when it is ready" property vmfabricd Type notify
check "and told" eval 'property vmfabricd SubState running && journal_says ready'
check "both units are enabled" eval 'systemctl is-enabled vmfabricd.service vmfabric-hook.socket'
check "the hook's socket is systemd's" eval 'property vmfabric-hook.socket SubState running && [ "$(stat -c %a:%U /run/vmfabric/hook.sock)" = 600:root ]'
check "nothing failed" eval '[ -z "$(systemctl --failed --no-legend)" ]'
check "its exposure is at most 3.0" eval 'systemd-analyze security --no-pager --threshold=30 vmfabricd | tail -n 1'
tail -n 1 "$RIG_LOGS/check.out" | sed 's/^/                 /'
status_field() { awk -v key="$1:" '$1 == key { print $2 }' "/proc/$(daemon_pid)/status"; }
check "it runs under a seccomp filter, without new privileges" eval '[ "$(status_field Seccomp)" = 2 ] && [ "$(status_field NoNewPrivs)" = 1 ]'
check "its capabilities are those of the unit" eval '[ "$((0x$(status_field CapBnd)))" = "$((1 << 12 | 1 << 13 | 1 << 10 | 1 << 21))" ] && [ "$(status_field CapEff)" = "$(status_field CapBnd)" ]'
check "/etc is read-only to it" eval '! nsenter -t "$(daemon_pid)" -m touch /etc/vmfabric-was-here'
check "libvirt is restarted, as it said" systemctl restart libvirtd
check "libvirt is connected" eventually libvirt_is connected
check "the network is offered" eventually network_active nat

# --- a guest ---
internet_host || finish
check "virt-install makes and starts a guest on it" virt-install --quiet --name web --memory 64 --vcpus 1 --virt-type qemu \
  --osinfo detect=off,require=off --import --disk none --graphics none --noautoconsole --network network=nat,mac=$mac,model=virtio \
  --serial "unix,source.mode=bind,source.path=$RIG_LOGS/web.console,log.file=$RIG_LOGS/web.log,log.append=on" \
  --boot "kernel=$VMFABRIC_KERNELS/vmlinux-guest,initrd=$VMFABRIC_GUEST,kernel_args=console=ttyS0 quiet panic=-1 host=web"
need "its port is active" eventually port_is $mac status active
check "its tap is bound, on a bridge that denies by default" eval 'deny_by_default && bound "$(tap_of web $mac)"'
need "it has a lease" has_lease web 240
address=$(port $mac addresses)
echo "                 $(cut -d' ' -f1 /proc/uptime) s since the machine began"
fields() { journalctl -b -u vmfabricd VMFABRIC_DOMAIN=web -o json --no-pager | python3 -c '
import json, sys
found = [e for line in sys.stdin for e in [json.loads(line)] if e["MESSAGE"].startswith("port is up ")]
print(found)
want = {"VMFABRIC_NETWORK": "nat", "VMFABRIC_DOMAIN": "web", "VMFABRIC_MAC": sys.argv[1], "VMFABRIC_TAP": sys.argv[2]}
sys.exit(not any(want.items() <= e.items() and len(e.get("VMFABRIC_PORT", "")) == 36 for e in found))' "$mac" "$(tap_of web $mac)"; }
check "the journal has its network, port, domain and tap, as fields" fields
check "vmfabric logs finds them by the port" eval 'vmfabric logs $mac | grep "port is up"'
check "and by the guest" eval 'vmfabric --json logs web | grep VMFABRIC_PORT'
check "and nothing of others" eval '[ -z "$(vmfabric logs other)" ]'

ping -i 0.5 -W 20 "$address" >"$RIG_LOGS/host-to-guest" 2>&1 &
ping_pid=$!
need "a ping from the guest outwards begins, by NAT" guest_run -t 60 web '(ping -i 0.5 -W 20 203.0.113.2 >/tmp/outside 2>&1 & echo $! >/tmp/pid) </dev/null'
answers() { grep -c 'bytes from' "$RIG_LOGS/host-to-guest"; }
five_more() { local from; from=$(answers); wait_for $LONG eval '[ "$(answers)" -ge $((from + 5)) ]'; }
need "the host's ping is answered" five_more

# --- who may do what ---
check "anybody may read" as nobody-special vmfabric network list
check "an unprivileged user may change nothing" status_of 5 as nobody-special vmfabric network create theirs
check "nor delete" status_of 5 as nobody-special vmfabric network delete nat
check "nor set the log level" status_of 5 as nobody-special vmfabric log-level debug
check "there is no such network" status_of 3 vmfabric network show theirs
with_password() { # PASSWORD COMMAND: as admin, logged in on a terminal, who types the password when asked
  python3 - "$@" <<'P'
import os, pty, sys, termios, time
pid, terminal = pty.fork()
if pid == 0:
    # --command would have no controlling terminal, and so nobody who could be asked.
    os.execvp("su", ["su", "-l", "admin", "--session-command", sys.argv[2]])
seen, typed = b"", 0
while True:
    try:
        data = os.read(terminal, 4096)
    except OSError:
        break
    seen += data
    if seen.count(b"assword:") > typed:
        typed += 1
        # What is typed before the terminal stops to show it is thrown away.
        deadline = time.monotonic() + 60
        while termios.tcgetattr(terminal)[3] & termios.ECHO and time.monotonic() < deadline:
            time.sleep(0.05)
        os.write(terminal, sys.argv[1].encode() + b"\n")
print(seen.decode(errors="replace"), "passwords typed:", typed)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
P
}
check "an administrator, asked for a password, may not with a wrong one" status_of 5 with_password wrong "vmfabric network create administered"
check "and may with the right one" with_password secret "vmfabric network create administered"
check "the network is there" vmfabric network show administered
echo 'polkit.addRule(function(action, subject) { if (action.id.indexOf("org.vmfabric1.") == 0 && subject.user == "admin") return polkit.Result.YES; });' \
  >/etc/polkit-1/rules.d/50-vmfabric.rules
check "by a polkit rule an administrator may, unasked" as admin vmfabric network create ruled
check "and delete" as admin vmfabric network delete ruled
check "D-Bus tools of others work" eval 'as nobody-special busctl --system get-property org.vmfabric1 /org/vmfabric1 org.vmfabric1.Manager Version'

# --- activation ---
old=$(daemon_pid)
check "the daemon is stopped" systemctl stop vmfabricd
check "the socket stays" systemctl is-active vmfabric-hook.socket
define_guest db 52:54:00:c0:00:02 network=nat
# Where the machine is slow the first hook may give up before the daemon is there.
check "a guest that starts meanwhile wakes it up, through the hook" eventually virsh start --paused db
check "it is active again" active
check "by another process" [ "$(daemon_pid)" != "$old" ]
check "the guest's port is active" eventually port_is 52:54:00:c0:00:02 status active
virsh -q destroy db
check "it is stopped again" systemctl stop vmfabricd
check "who asks on the bus wakes it up" eval 'as nobody-special vmfabric network list | grep -w nat'
check "it is active" active
check "disabled, it is not woken up by the bus" eval 'systemctl -q disable --now vmfabricd vmfabric-hook.socket; status_of 6 vmfabric network list'
check "enabled, it is there again" eval 'systemctl -q enable --now vmfabricd && active && systemctl is-active vmfabric-hook.socket'
five_more

# --- configuration ---
printf '[log]\nlevel = "debug"\n[physical_networks.lan]\ninterface = "lan0"\n' >/etc/vmfabric/vmfabricd.toml
old=$(daemon_pid)
check "systemctl reload takes a new configuration up" eval 'systemctl reload vmfabricd && wait_for $LONG journal_says "configuration taken up"'
check "its physical network is known" eval 'vmfabric network create flat --physical lan && vmfabric network delete flat'
check "its log level too" eval '[ "$(vmfabric log-level)" = debug ]'
printf '[log]\nlevel = "debug"\nnonsense = 1\n' >/etc/vmfabric/vmfabricd.toml
check "a configuration with a fault is refused" eval 'systemctl reload vmfabricd; wait_for $LONG journal_says "the configuration stays as it was"'
check "file, line and key are in the journal" eval 'journal | grep "vmfabricd.toml" | grep nonsense | grep -w 3'
check "it runs on as it was" eval 'active && [ "$(daemon_pid)" = $old ] && [ "$(vmfabric log-level)" = debug ]'
: >/etc/vmfabric/vmfabricd.toml
check "the file is mended, and reloaded" eval 'systemctl reload vmfabricd && wait_for $LONG eval "[ \$(vmfabric log-level) = info ]"'
debug_messages() { journalctl -b -u vmfabricd -p 7..7 --no-pager -o cat | grep -c .; }
before=$(debug_messages)
check "the log level is changed while it runs" eval 'vmfabric log-level debug && [ "$(vmfabric log-level)" = debug ]'
check "the journal has more of it" eval 'vmfabric network create talk && wait_for $LONG eval "[ \$(debug_messages) -gt $before ]"'
check "and back" eval 'vmfabric log-level info && vmfabric network delete talk'

# --- ends of the daemon ---
gone() { ! kill -0 "$1" 2>/dev/null; }
old=$(daemon_pid)
check "systemctl restart" systemctl restart vmfabricd
check "it is active, by another process" eval 'active && [ "$(daemon_pid)" != $old ]'
check "its first plan is empty" plan_is_empty
five_more
mkdir -p /run/systemd/system/vmfabricd.service.d
printf '[Service]\nWatchdogSec=4s\n' >/run/systemd/system/vmfabricd.service.d/test.conf
check "with a watchdog of 4 s, not of 60" eval 'systemctl daemon-reload && systemctl restart vmfabricd && active'
old=$(daemon_pid)
check "the daemon hangs: SIGSTOP" kill -STOP "$old"
check "systemd ends it" wait_for $LONG gone "$old"
check "because of the watchdog" eventually eval 'journalctl -b --no-pager -u vmfabricd | grep -i "watchdog timeout"'
check "and starts it again" eventually active
check "its first plan is empty" plan_is_empty
check "it lives longer than the watchdog's time" eval 'pid=$(daemon_pid); from=$SECONDS; wait_for 60 [ $((SECONDS - from)) -ge 9 ]; [ "$(daemon_pid)" = "$pid" ]'
rm -r /run/systemd/system/vmfabricd.service.d
systemctl daemon-reload
old=$(daemon_pid)
check "it is killed: SIGKILL" kill -KILL "$old"
check "systemd starts it again" eventually eval 'active && [ "$(daemon_pid)" != $old ]'
five_more

# --- upgrade ---
mkdir /tmp/next && dpkg-deb -R "$deb" /tmp/next/tree && sed -i 's/^Version: .*/&+next/' /tmp/next/tree/DEBIAN/control &&
  dpkg-deb -Znone -b /tmp/next/tree /tmp/next/vmfabric.deb >/dev/null || finish
echo '# mine' >>/etc/vmfabric/vmfabricd.toml
old=$(daemon_pid)
check "the package is upgraded" apt-get -qqy -o Dpkg::Options::=--force-confold install /tmp/next/vmfabric.deb
check "the new one runs" eval 'dpkg-query -W -f "\${Version}" vmfabric | grep next && active && [ "$(daemon_pid)" != $old ]'
check "its first plan is empty" plan_is_empty
check "the administrator's configuration stays" grep -x '# mine' /etc/vmfabric/vmfabricd.toml
check "the lease stays" eval 'vmfabric lease list | grep -w "$address"'
five_more

kill -INT $ping_pid
wait $ping_pid
# Of what was sent when it ended the answer may be on its way; before that none is missing.
MISSING='/seq=/ { n = $2 + 0; seen[n] = 1; if (min == "") min = n; if (n > max) max = n }
  END { for (n = min; n <= max; n++) if (!(n in seen)) { print "lost: " n; lost = 1 } exit lost || max < 100 }'
check "host to guest, through all of it: no packet was lost" awk -F seq= "$MISSING" "$RIG_LOGS/host-to-guest"
grep transmitted "$RIG_LOGS/host-to-guest" | sed 's/^/                 /'
check "guest to outside: no packet was lost" guest_run -t 60 web "kill -INT \$(cat /tmp/pid); sleep 1; tail -n 3 /tmp/outside | grep transmitted; awk -F seq= '$MISSING' /tmp/outside"
grep transmitted "$RIG_LOGS/check.out" | sed 's/^/                 /'

# --- removal ---
check "the package is removed" apt-get -qqy remove vmfabric
check "the daemon is gone, and its units" eval '! pidof vmfabricd && ! systemctl cat vmfabricd.service vmfabric-hook.socket && [ ! -e /run/vmfabric/hook.sock ]'
check "the configuration is kept" grep -x '# mine' /etc/vmfabric/vmfabricd.toml
check "so is the guest's network" ping -c 2 -W 20 "$address"
check "nothing failed" eval '[ -z "$(systemctl --failed --no-legend)" ]'
check "the package is installed again, and takes up what stands" eval 'apt-get -qqy install /tmp/next/vmfabric.deb && active && plan_is_empty'
check "the guest has its network" ping -c 2 -W 20 "$address"
check "the package is purged" apt-get -qqy purge vmfabric
check "no link of ours is left" eval '! ip link | grep "alias vmfabric:"'
check "no table" eval '! nft list tables | grep vmfabric'
check "no libvirt network" eval '[ -z "$(virsh net-list --all --name | grep -x nat)" ]'
check "no file" eval '! find /etc /usr /var/lib /run -name "*vmfabric*" ! -path "/run/rig/*" ! -path "/etc/polkit-1/*" ! -path "/var/lib/apt/*" | grep .'
check "nothing forwards" [ "$(cat /proc/sys/net/ipv4/conf/uplink/forwarding)" = 0 ]
check "the guest runs on" running web
check "nothing failed" eval '[ -z "$(systemctl --failed --no-legend)" ]'
finish
