#!/bin/bash
# Usage: tools/docker-keys.sh
#
# Writes tests/docker/api-1.41: the keys and types that Debian's docker (unpacked by `tools/setup.sh test`) shows for
# containers, images, volumes and itself. docker runs on an embedded host made for this. Run it after adding a kind of
# container to tests/host/lookalike.py.
set -euo pipefail
cd "$(dirname "$0")/.."

name=docker-keys-$$
sysbox=$PWD/.venv/bin/sysbox
trap '"$sysbox" host stop --name "$name" --purge' EXIT
"$sysbox" host start --name "$name" --private-network >/dev/null
"$sysbox" host exec --name "$name" -- "$PWD/.venv/bin/python" -B "$PWD/tools/docker-keys.py"
