# shellcheck shell=bash
# console.sh: what the tests of the guides share.
. "${VMFABRIC_RIG:?run me by: cargo test --test hosts cli:: -- --ignored}/lib.sh"
docs=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../docs" && pwd)
export LC_ALL=C.UTF-8
failed=0
# What made it fail is in the daemon's own words.
trap '[ $? = 0 ] || { vmfabric status; tail -n 40 "$RIG_LOGS/vmfabricd.log"; }' EXIT

# run GUIDE [shortened]: does what follows `$` in the guide's console blocks, and compares what it prints with what stands below.
# Shortened: each line that stands there has to be printed, in that order, whatever else is; ids, ages and `…` are any.
run() {
  python3 - "$docs/$1" "${2-}" <<'P' || failed=1
import os, re, subprocess, sys
failed = count = 0

def same(expected, output):
    if not sys.argv[2]:
        # Some programs fill their last column up.
        expected, output = (re.sub(r"[ \t]+$", "", text, flags=re.M).rstrip() for text in (expected, output))
        return expected == output
    output, at = " ".join(output.split()), 0
    for line in expected.splitlines():
        line = re.escape(" ".join(line.split())).replace("…", ".*")
        line = re.sub(r"[0-9a-f]{8}\\-[0-9a-f]{4}\\-[0-9a-f]{4}\\-[0-9a-f]{4}\\-[0-9a-f]{12}", "[0-9a-f-]{36}", line)
        line = re.sub(r"(?<![\w.:])[0-9a-f]{8}(?![\w.:])", "[0-9a-f]{8}", line)
        line = re.sub(r"1h\\ 0m", r"(1h 0m|59m( \\d+s)?)", line)
        found = re.compile(line).search(output, at)
        if not found:
            return False
        at = found.end()
    return True

for block in re.findall(r"^```console\n(.*?)^```$", open(sys.argv[1]).read(), re.S | re.M):
    for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n?)*)", block, re.M):
        output = subprocess.run(["bash", "-c", command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
        count += 1
        if not same(expected, output):
            failed = 1
            print(f"FAIL  $ {command}\n--- is\n{output}--- should be\n{expected}")
print(f"{count} commands of {os.path.basename(sys.argv[1])}")
sys.exit(failed or not count)
P
}

# shown GUIDE FILE: a file as the guide shows it, by `cat FILE`
shown() { awk -v command="\$ cat $2" '/^(\$ |```$)/ { on = 0 } on { print } $0 == command { on = 1 }' "$docs/$1"; }

# prepare: vmfabric installed in a folder of its own, with the system bus; the daemon does not run yet
prepare() {
  cd "$(mktemp -d)" || exit
  install_vmfabric && start_bus || exit
  mkdir -p /etc/vmfabric /var/lib/vmfabric
}

# begin: the daemon runs, and knows of no network
begin() {
  start_vmfabricd || exit
  vmfabric apply -f - --prune --yes <<<'{}' >/dev/null
}

# A person sees a network in libvirt before they start a guest on it, and waits until the guest is up.
virsh() {
  local network
  [ "$1" != start ] || for network in $(command virsh dumpxml "$2" | sed -n "s/.*<source network='\([^']*\)'.*/\1/p"); do
    wait_for 30 eval "command virsh net-info $network | grep -q '^Active: *yes'"
  done
  command virsh "$@"
}
export -f virsh wait_for

# systemctl VERB [--now] UNIT...: vmfabricd's units as far as a person sees them, who is told nothing. Export it where a guide uses it.
systemctl() {
  case $* in
    *vmfabricd) ;;
    *) echo "systemctl $*: what is that here?"; return 1 ;;
  esac
  case " $* " in
    *' stop '* | *' disable '*) pkill -TERM -x vmfabricd && wait_for 20 not pgrep -x vmfabricd ;;
    *' start '* | *' enable '*) wait_for 20 not pgrep -x vmfabricd && start_vmfabricd && wait_for 90 vmfabric status ;;
    *) echo "systemctl $*: what is that here?"; return 1 ;;
  esac
}
