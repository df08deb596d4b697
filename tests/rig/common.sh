# shellcheck shell=bash
# common.sh: what private-host, umlrun and host-vm share. Sourced, not run.

# need_root TOOL REASON
need_root() { [ "$(id -u)" = 0 ] || { echo "$1: needs root: $2" >&2; exit 77; }; }

# isolated SECONDS UNSHARE-ARGUMENT...: unshare in a pid namespace of its own. All inside dies with the command, after
# SECONDS (status 137; 0: no limit), and when this script dies, even of KILL.
isolated() {
  local limit=$1
  shift
  setpriv --pdeathsig KILL timeout --foreground -s KILL "$limit" \
    setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child=KILL --mount-proc --propagation private "$@"
}

# other_root ROOT FOLDER...: in a mount namespace, makes /mnt/root: ROOT, copy on write, with the repository, the binaries, the
# rig's cache and these folders of this machine in it
other_root() {
  local d
  mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work /mnt/root || return
  mount -t overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root || return
  shift
  for d in "$@" "$(realpath "$VMFABRIC_RIG/../..")" ${VMFABRIC_BIN:+"$VMFABRIC_BIN"} "${VMFABRIC_RIG_CACHE:-/var/cache/vmfabric-rig}"; do
    mkdir -p "/mnt/root$d" && mount --rbind "$d" "/mnt/root$d" || return
  done
}

# write_command FILE SCRIPT [ARG...] | write_command FILE "" COMMAND [ARG...]
# Writes the script that the host runs: in the caller's folder, with VMFABRIC_* of the caller's environment.
write_command() {
  local file=$1 script=$2
  shift 2
  [ -z "$script" ] || set -- /bin/bash "$(realpath "$script")" "$@"
  {
    declare -px | grep -E '^declare -x (VMFABRIC_[A-Z_]+|RUST_LOG|RUST_BACKTRACE)='
    printf 'export LC_ALL=C.UTF-8 VMFABRIC_RIG=%q VMFABRIC_KERNELS=%q\n' "$VMFABRIC_RIG" "$VMFABRIC_KERNELS"
    printf 'cd %q 2>/dev/null\n' "$PWD"
    printf 'exec'
    printf ' %q' "$@"
    echo
  } >"$file"
}

# report EXCHANGE STATUS CONSOLE...: prints what the command printed; returns its status, 124 when time ran out (STATUS
# is that of `timeout -s KILL`), or 125 with the consoles shown when the host died.
report() {
  local exchange=$1 status=$2
  shift 2
  cat "$exchange/out" 2>/dev/null
  cat "$exchange/err" >&2 2>/dev/null
  [ ! -s "$exchange/status" ] || return "$(cat "$exchange/status")"
  tail -n 40 "$@" >&2
  [ "$status" = 137 ] && return 124
  return 125
}
