#!/bin/bash
# Usage: tools/test-vm.sh [--optional | PYTEST-ARGUMENT...]
#
# Runs tests/vm, and the tests of hosts that are worth emulating, in guests with cgroup v2 and SELinux: two at
# a time, and then where SELinux denies. With arguments: these alone, in one guest. Exit status: that of the
# first pytest that failed; 125 where no guest can be had, which with --optional is only said, but in CI.
set -euo pipefail
cd "$(dirname "$0")/.."

# Emulated, one container takes a second or two: what is about words and files is left to `make test-host`.
first=(tests/vm tests/host/test_{scope,limits,lifecycle,root}.py)
second=(tests/host/test_{network,security,namespaces}.py)
anywhere="not enforcing and not not_emulated"

run() { .venv/bin/python tools/vm/run.py "$@"; }

# guest FLAVOUR PYTEST-ARGUMENT...
guest() {
    local flavour=$1 words
    shift
    printf -v words ' %q' "$@"
    run --flavour "$flavour" "tools/test-network.sh && exec python -m pytest -p no:cacheprovider$words"
}

if ! { tools/setup.sh vm && run true; }; then
    echo "test-vm: NOT RUN: no guest can be had, for the reason above" >&2
    [[ ${1-} == --optional && -z ${CI-} ]] || exit 125
    exit 0
fi
if (($#)) && [[ $1 != --optional ]]; then
    guest permissive "$@"
    exit
fi

output=$(mktemp)
trap 'rm -f "$output"' EXIT
trap 'kill $(jobs -p) 2>/dev/null; exit 130' INT TERM
status=0
guest permissive -m "$anywhere" "${second[@]}" &>"$output" &
guest permissive -m "$anywhere" "${first[@]}" || status=$?
wait $! || status=$((status ? status : $?))
cat "$output"
guest enforcing -m enforcing tests/vm || status=$((status ? status : $?))
exit "$status"
