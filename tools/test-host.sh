#!/bin/bash
# Usage: tools/test-host.sh [PYTEST-ARGUMENT...]
#
# Runs tests/host and tests/attack (or the given files) as root on embedded hosts made for them: each with a real systemd, a
# network namespace with an uplink, and a network namespace "outside" at its other end. Without arguments several hosts share
# the files: SYSBOX_TEST_HOSTS, by default two more than there are CPUs, since tests wait. Always stops the hosts at the end.
# Exit status: pytest's (1: tests failed), 2 if a host could not be stopped.
set -euo pipefail
cd "$(dirname "$0")/.."

sysbox=$PWD/.venv/bin/sysbox

[[ -x $sysbox ]] || { echo "test-host: run \`make build\` first" >&2; exit 1; }
if ((EUID)); then
    command -v sudo >/dev/null || { echo "test-host: must be root" >&2; exit 1; }
    exec sudo --preserve-env=CI,SYSBOX_SOAK,SYSBOX_SOAK_ROUNDS,SYSBOX_SEED,SYSBOX_TEST_HOSTS "$0" "$@"
fi

number=1
(($#)) || number=${SYSBOX_TEST_HOSTS:-$(($(nproc) + 2))}
hosts=()
for ((at = 1; at <= number; at++)); do
    hosts+=("test-$$-$at")
done

stop() {
    status=$?
    trap - EXIT
    each stop_host || status=2
    exit "$status"
}

# Calls a function for each host, all at once; fails if one of the calls did.
each() {
    local host failed=0 jobs=()
    for host in "${hosts[@]}"; do
        "$1" "$host" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do
        wait "$job" || failed=1
    done
    return "$failed"
}

start_host() {
    "$sysbox" host start --name "$1" --private-network >/dev/null
    "$sysbox" host exec --name "$1" -- tools/test-network.sh
}

stop_host() {
    "$sysbox" host stop --name "$1" --timeout 30 --purge
}

trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
each start_host

if (($#)); then
    paths=()
    for word in "$@"; do
        [[ -e ${word%%::*} ]] && paths+=("$word")
    done
    ((${#paths[@]})) || set -- tests/host tests/attack "$@"
    "$sysbox" host exec --name "${hosts[0]}" -- .venv/bin/pytest -p no:cacheprovider "$@"
else
    # one process of pytest in each host, which execnet(1) starts and pytest-xdist gives one file after the other
    workers=()
    for host in "${hosts[@]}"; do
        workers+=(--tx "popen//python=$sysbox host exec --name $host -- $PWD/.venv/bin/python")
    done
    # in the order of tests/host/lane.py; the files that took long are named at the end, for tests/host/seconds.txt
    .venv/bin/pytest -p no:cacheprovider --dist loadfile --no-loadscope-reorder "${workers[@]}" tests/host tests/attack
fi
