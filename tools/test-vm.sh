#!/bin/bash
# Usage: tools/test-vm.sh [--optional | PYTEST-ARGUMENT...]
#
# Runs tests/vm, and the tests of hosts that are worth emulating, in guests with cgroup v2 and SELinux. With
# arguments: these alone, in one guest of the kind that the files are for. Exit status: 125 where no guest can be had, which with --optional is
# only said, but not in CI.
set -euo pipefail
cd "$(dirname "$0")/.."

run() { .venv/bin/python tools/vm/run.py "$@"; }

# 125 if the guest cannot be had; whatever else goes wrong is a failure
status=0
if tools/setup.sh vm; then run true || status=$?; else status=125; fi
if ((status == 125)); then
    echo "test-vm: NOT RUN: no guest can be had, for the reason above" >&2
    [[ ${1-} == --optional && -z ${CI-} ]] && exit 0
fi
((status)) && exit "$status"

[[ ${1-} == --optional ]] && shift
(($#)) || exec .venv/bin/python tools/vm/lane.py
flavour=permissive
for word in "$@"; do
    grep -qs -e '^pytestmark.*enforcing' -- "${word%%::*}" && flavour=enforcing
done
printf -v words ' %q' "$@"
run --flavour "$flavour" "tools/test-network.sh && exec python -m pytest -p no:cacheprovider$words"
