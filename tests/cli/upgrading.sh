#!/bin/bash
# upgrading.sh: the commands of docs/upgrading.md print what stands below them there, with a guest that runs through all of it.
. "$(dirname "$0")/console.sh"
prepare
begin
start_libvirt && wait_for 90 vmfabric status || exit
vmfabric network create lab >/dev/null && vmfabric subnet create lab 10.77.0.0/24 --forward nat >/dev/null || exit
define_guest web 52:54:00:ab:cd:01 network=lab && virsh -q start web && wait_lease web 120 >/dev/null || exit
ping -i 0.2 -W 5 "$(guest_ip web)" >"$RIG_LOGS/ping" &
pinging=$!

# Where the guide starts it by hand, a newer one has had the store.
vmfabricd() {
  python3 -c 'import sqlite3; sqlite3.connect("/var/lib/vmfabric/vmfabric.db").execute("PRAGMA user_version = 6")'
  /usr/sbin/vmfabricd "$@"
}
export RIG_LOGS
export -f systemctl vmfabricd start_vmfabricd vmfabricd_answers not
run upgrading.md

kill -INT $pinging
wait $pinging
grep ' 0% packet loss' "$RIG_LOGS/ping" || { tail -n 3 "$RIG_LOGS/ping"; failed=1; }
exit $failed
