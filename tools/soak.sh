#!/bin/bash
# Usage: tools/soak.sh [PYTEST-ARGUMENT...]
#
# First tests/fuzz with SYSBOX_FUZZ (1000) inputs for each property, others each time: some minutes. Then the long
# versions of tests/host/test_faults.py, on an embedded host of their own: SYSBOX_SOAK_ROUNDS (1000) rounds with
# kill -9 at random instants, every error from every kind of system call, 64 starts at once, every damage to every
# record. It takes half an hour. What is left to chance is repeated with SYSBOX_SEED=, which is in the output.
set -euo pipefail
cd "$(dirname "$0")/.."

SYSBOX_FUZZ=${SYSBOX_FUZZ:-1000} .venv/bin/pytest -q -p no:cacheprovider tests/fuzz
export SYSBOX_SOAK=1
exec tools/test-host.sh tests/host/test_faults.py -v -s "$@"
