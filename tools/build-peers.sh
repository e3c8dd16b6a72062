#!/bin/bash
# Usage: tools/build-peers.sh [CASE...]
#
# Writes tests/docker/builds: what Debian's docker (its classic builder, and BuildKit) and buildah make of the Containerfiles of
# tests/host/build_cases.py. They run on an embedded host made for this. Run it after changing a case.
# With names, only these cases are made anew.
set -euo pipefail
cd "$(dirname "$0")/.."

name=build-peers-$$
sysbox=$PWD/.venv/bin/sysbox
trap '"$sysbox" host stop --name "$name" --purge' EXIT
"$sysbox" host start --name "$name" --private-network >/dev/null
"$sysbox" host exec --name "$name" -- "$PWD/.venv/bin/python" -B "$PWD/tools/build-peers.py" "$@"
