#!/bin/bash
# docs.sh: the commands of docs/getting-started.md and docs/troubleshooting.md print what stands below them there.
. "$VMFABRIC_RIG/lib.sh"
docs=$(cd "$(dirname "$0")/../../docs" && pwd)
cd "$(mktemp -d)" || exit
install_vmfabric && start_bus || exit
mkdir -p /etc/vmfabric /var/lib/vmfabric
# The document is the one that is shown; a first network would be shown too.
sed -n '/^\$ cat lab.toml$/,/^```$/p' "$docs/getting-started.md" | sed '1d;$d' >lab.toml
export LC_ALL=C.UTF-8
run() {
  python3 - "$1" <<'P'
import re, subprocess, sys
failed = count = 0
for block in re.findall(r"^```console\n(.*?)^```$", open(sys.argv[1]).read(), re.S | re.M):
    for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n?)*)", block, re.M):
        output = subprocess.run(["bash", "-c", command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
        count += 1
        if output.rstrip() != expected.rstrip():
            failed = 1
            print(f"FAIL  $ {command}\n--- is\n{output}--- should be\n{expected}")
print(f"{count} commands of {sys.argv[1].rsplit('/', 1)[1]}")
sys.exit(failed or not count)
P
}
failed=0
rm /etc/libvirt/hooks/qemu.d/vmfabric
run "$docs/troubleshooting.md" || failed=1
start_vmfabricd && wait_for 20 vmfabricd_answers || exit
vmfabric apply -f - --prune --yes <<<'{}' >/dev/null
run "$docs/getting-started.md" || failed=1
exit $failed
