#!/bin/bash
# Usage: tools/soak.sh [PYTEST-ARGUMENT...]
#
# Runs tests/fuzz with SYSBOX_FUZZ (1000) new random inputs for each property, which takes some minutes. Then runs the
# long versions of tests/host/test_faults.py on an embedded host: SYSBOX_SOAK_ROUNDS (1000) rounds with kill -9 at random
# instants, every error from every kind of system call, 64 starts at once, every kind of damage to every record, as many
# rounds of changes of networks, and 64 starts at once on one of them. It takes more than half an hour. To repeat a run, set
# SYSBOX_SEED to the value in its output.
set -euo pipefail
cd "$(dirname "$0")/.."

SYSBOX_FUZZ=${SYSBOX_FUZZ:-1000} .venv/bin/pytest -q -p no:cacheprovider tests/fuzz
export SYSBOX_SOAK=1
tests="tests/host/test_faults.py tests/host/test_networks.py::test_many_at_random tests/host/test_compose.py::test_many_start_at_once_on_one_network"
# shellcheck disable=SC2086 # words
exec tools/test-host.sh $tests -v -s "$@"
