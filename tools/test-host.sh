#!/bin/bash
# Usage: tools/test-host.sh [PYTEST-ARGUMENT...]
#
# Runs tests/host and tests/attack (or the given files) as root on an embedded host made for them: a real systemd, a network
# namespace with an uplink, and a network namespace "outside" at its other end. Always stops the host at the end.
# Exit status: pytest's (1: tests failed), 2 if the host could not be stopped.
set -euo pipefail
cd "$(dirname "$0")/.."

name=test-$$
sysbox=$PWD/.venv/bin/sysbox

[[ -x $sysbox ]] || { echo "test-host: run \`make build\` first" >&2; exit 1; }
if ((EUID)); then
    command -v sudo >/dev/null || { echo "test-host: must be root" >&2; exit 1; }
    exec sudo --preserve-env=CI,SYSBOX_SOAK,SYSBOX_SOAK_ROUNDS,SYSBOX_SEED "$0" "$@"
fi

stop() {
    status=$?
    trap - EXIT
    "$sysbox" host stop --name "$name" --timeout 30 --purge || status=2
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

"$sysbox" host start --name "$name" --private-network >/dev/null
"$sysbox" host exec --name "$name" -- tools/test-network.sh

paths=()
for word in "$@"; do
    [[ -e ${word%%::*} ]] && paths+=("$word")
done
((${#paths[@]})) || set -- tests/host tests/attack "$@"
"$sysbox" host exec --name "$name" -- .venv/bin/pytest -p no:cacheprovider "$@"
