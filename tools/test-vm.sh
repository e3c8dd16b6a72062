#!/bin/bash
# Usage: tools/test-vm.sh [--optional | [--enforcing] PYTEST-ARGUMENT...]
#
# Runs tests/vm, and the tests of tests/host and tests/attack that are marked `guest`, in guests with cgroup v2 and SELinux,
# and tests/reboot with a guest. With arguments: only these, in one guest of the flavour that the files need, or where
# SELinux denies (--enforcing).
# Exit status: 125 if no guest can be made; with --optional that is 0 and a message, except in CI.
set -euo pipefail
cd "$(dirname "$0")/.."

run() { .venv/bin/python tools/vm/run.py "$@"; }

# 125 if the guest cannot be made; any other error is a failure
status=0
if tools/setup.sh vm; then run true || status=$?; else status=125; fi
if ((status == 125)); then
    echo "test-vm: NOT RUN: no guest can be made, for the reason above" >&2
    [[ ${1-} == --optional && -z ${CI-} ]] && exit 0
fi
((status)) && exit "$status"

[[ ${1-} == --optional ]] && shift
(($#)) || exec .venv/bin/python tools/vm/lane.py
[[ $* == *tests/reboot* ]] && exec .venv/bin/python -m pytest -p no:cacheprovider "$@"
flavour=permissive
if [[ $1 == --enforcing ]]; then
    flavour=enforcing
    shift
fi
for word in "$@"; do
    for own in enforcing apparmor smp; do
        grep -qs -e "^pytestmark.*mark.$own(" -- "${word%%::*}" && flavour=$own
    done
done
printf -v words ' %q' "$@"
run --flavour "$flavour" "tools/test-network.sh && exec python -m pytest -p no:cacheprovider$words"
