#!/bin/bash
# libvirt.sh: the commands of docs/migrating-from-libvirt.md print what stands below them there, with libvirt's `default` as it is
# shipped and a guest that runs through all of it.
. "$(dirname "$0")/console.sh"
prepare
start_libvirt && virsh -q net-define /usr/share/libvirt/networks/default.xml && virsh -q net-autostart default &&
  command virsh -q net-start default || exit
define_guest web 52:54:00:ab:cd:01 network=default && command virsh -q start web && wait_lease web 120 >/dev/null || exit
begin
wait_for 90 vmfabric status || exit
run migrating-from-libvirt.md
exit $failed
