#!/bin/bash
# Usage: bench/against.sh [--pairs N] [--only WORDS] COMMIT
#
# Compares this checkout with COMMIT in one run: builds COMMIT in a worktree below .venv/, boots an
# embedded host for each of the two, and prints the ratios of their times (see against.py).
set -euo pipefail
cd "$(dirname "$0")/.."

(($#)) && [[ -n ${*: -1} ]] || { sed -n 's/^# Usage: /usage: /p' "$0" >&2; exit 2; }
commit=$(git rev-parse --verify --short "${*: -1}^{commit}")
old=$PWD/.venv/against-$commit

say() { printf 'bench: %s\n' "$*" >&2; }

tools/setup.sh build
[[ -e $old ]] || git worktree add --quiet --detach "$old" "$commit"
trap 'git worktree remove --force "$old"' EXIT
say "building $commit"
"$old/tools/setup.sh" build
.venv/bin/python -B bench/against.py "${@:1:$#-1}" "$PWD" "$old"
