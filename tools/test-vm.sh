#!/bin/bash
# Usage: tools/test-vm.sh [PYTEST-ARGUMENT...]
#
# Runs tests/vm, and the tests of hosts that are worth emulating, in a guest with cgroup v2 and SELinux: as
# everybody has it, and where SELinux denies. With arguments: these, in the first of the two.
set -euo pipefail
cd "$(dirname "$0")/.."

# emulated, one container takes a second or two: what is about words and files is left to `make test-host`
hosts=(test_scope test_limits test_lifecycle test_network test_security test_namespaces test_root)

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
status=0
guest permissive -m "not enforcing and not not_emulated" --durations=10 \
    tests/vm "${hosts[@]/#/tests/host/}" || status=$?
guest enforcing -m enforcing tests/vm || status=$?
exit "$status"
