#!/bin/bash
# Usage: tools/demo.sh
#
# `make run`: shows one container with limits as a systemd unit, and changes a limit while it runs.
# Where PID 1 is not systemd, all of it runs on the embedded host, which sysbox boots by itself.
set -euo pipefail
cd "$(dirname "$0")/.."

sysbox=$PWD/.venv/bin/sysbox
name=tour-$$

# The prefix of commands that must run on the containers' host.
if [[ -d /run/systemd/system ]]; then
    on_host=()
elif ((EUID)); then
    exec "$sysbox" ps # fails, and says what to do
else
    on_host=("$sysbox" host exec)
    "$sysbox" host start
fi

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
# Prints a command as a user would type it, and runs it.
try() {
    printf '%s# %s%s\n' "$dim" "${*/#"$sysbox"/sysbox}" "$plain"
    case $1 in
        "$sysbox") "$@" ;;
        *) "${on_host[@]}" "$@" ;;
    esac
}
show() { # TITLE FILE: prints a limit from the kernel's file
    printf '%-28s%-18s%s\n' "$1" "$("${on_host[@]}" cat "$2")" "$dim$2$plain"
}
finish() { "$sysbox" rm -f "$name" >/dev/null 2>&1 || true; }
trap finish EXIT

say "1. A container. Its image is this machine's own /usr, read-only: nothing is downloaded."
try "$sysbox" run --rm host sh -c 'echo "hello from $(hostname), process $$ of $(ps -e | grep -c .)"'

say "2. One with limits, in the background."
try "$sysbox" run -d --name "$name" -c 512 -m 128m --cpuset=0 --pids-limit 64 host \
    sh -c 'trap "exit 0" TERM; while :; do echo "working"; sleep 1; done'
id=$("$sysbox" inspect -f '{{.Id}}' "$name")
scope=docker-$id.scope
try "$sysbox" ps

say "3. It is a systemd unit: systemd-cgls shows it."
try systemd-cgls --no-pager --xattr=no --cgroup-id=no -u system.slice

say "4. Each limit, read back from the kernel."
if [[ -n $("${on_host[@]}" sh -c 'ls -d /sys/fs/cgroup/memory 2>/dev/null') ]]; then
    at() { printf '/sys/fs/cgroup/%s/system.slice/%s/%s' "$1" "$scope" "$2"; }
    weight=$(at cpu cpu.shares) tune=CPUShares=128
    show "-c 512" "$weight"
    show "-m 128m" "$(at memory memory.limit_in_bytes)"
    show "  and as much swap again" "$(at memory memory.memsw.limit_in_bytes)"
    show "--cpuset=0" "$(at cpuset cpuset.cpus)"
    show "--pids-limit 64" "$(at pids pids.max)"
else
    at() { printf '/sys/fs/cgroup/system.slice/%s/%s' "$scope" "$1"; }
    weight=$(at cpu.weight) tune=CPUWeight=12
    show "-c 512 (100 is 1024)" "$weight"
    show "-m 128m" "$(at memory.max)"
    show "  and as much swap" "$(at memory.swap.max)"
    show "--cpuset=0" "$(at cpuset.cpus)"
    show "--pids-limit 64" "$(at pids.max)"
fi

say "5. Changed while it runs, with systemd's own tool; sysbox shows the new value."
try systemctl set-property --runtime "$scope" "$tune"
show "after $tune" "$weight"
try "$sysbox" inspect -f 'cpu shares {{ .HostConfig.CpuShares }}, memory {{ .HostConfig.Memory }}' "$name"

say "6. Its log is the unit's log; stopping the unit stops the container."
try "$sysbox" logs --tail 2 "$name"
try systemctl stop "$scope"
try "$sysbox" ps -a --filter "name=$name"
say "This is the end of the tour. \`sysbox --help\` lists all verbs; README.md has more."
[[ ${#on_host[@]} == 0 ]] || echo "The embedded host keeps running; \`$sysbox host stop\` shuts it down."
