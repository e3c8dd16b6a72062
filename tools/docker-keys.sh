#!/bin/bash
# Usage: tools/docker-keys.sh
#
# Writes tests/docker/api-1.41: the keys and types that Debian's docker (unpacked by `tools/setup.sh test`) shows of
# containers, images, volumes and itself, on an embedded host of its own. Needed when a kind of container is
# added to tests/host/lookalike.py.
set -euo pipefail
cd "$(dirname "$0")/.."

name=docker-keys-$$
sysbox=$PWD/.venv/bin/sysbox
trap '"$sysbox" host stop --name "$name" --purge' EXIT
"$sysbox" host start --name "$name" --private-network >/dev/null
"$sysbox" host exec --name "$name" -- "$PWD/.venv/bin/python" -B "$PWD/tools/docker-keys.py"
