#!/bin/bash
# docs.sh: the commands of docs/getting-started.md, docs/clients.md and docs/troubleshooting.md print what stands below them there.
. "$(dirname "$0")/console.sh"
prepare
# The document is the one that is shown; a first network would be shown too.
shown getting-started.md lab.toml >lab.toml
rm /etc/libvirt/hooks/qemu.d/vmfabric
run troubleshooting.md
begin
run getting-started.md
vmfabric apply -f - --prune --yes <<<'{}' >/dev/null
shown clients.md networks.py >networks.py
run clients.md
exit $failed
