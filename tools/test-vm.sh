#!/bin/bash
# Usage: tools/test-vm.sh [PYTEST-ARGUMENT...]
#
# Runs tests/vm, and the tests of hosts that are worth emulating, in guests with cgroup v2 and SELinux: two at
# a time, and then where SELinux denies. With arguments: these alone. The exit status is that of the first
# pytest that failed, or 125 where there is no guest.
set -euo pipefail
cd "$(dirname "$0")/.."

# Emulated, one container takes a second or two: what is about words and files is left to `make test-host`.
first=(tests/vm tests/host/test_scope.py tests/host/test_limits.py tests/host/test_lifecycle.py)
second=(tests/host/test_network.py tests/host/test_security.py tests/host/test_namespaces.py tests/host/test_root.py)
anywhere="not enforcing and not not_emulated"

# guest FLAVOUR PYTEST-ARGUMENT...
guest() {
    local flavour=$1 words
    shift
    printf -v words ' %q' "$@"
    .venv/bin/python tools/vm/run.py --flavour "$flavour" \
        "tools/test-network.sh && exec python -m pytest -p no:cacheprovider$words"
}

[[ -x .venv/bin/python ]] || { echo "test-vm: run \`make build\` first" >&2; exit 1; }
if (($#)); then
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
