#!/bin/bash
# Usage: bench/names.sh [SECONDS | --unpack]
#
# How many questions a second a network's resolver answers, beside aardvark-dns (podman's), with dnsperf: names that are there,
# one core for each resolver and one for dnsperf, in turn, in a network namespace. Prints the ratio.
# Needs root, two CPUs, `make build`, and Debian's packages aardvark-dns and dnsperf, which it unpacks below .venv; with --unpack
# it does only that. They are not installed: with netavark, on which aardvark-dns depends, podman would use other networks.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(aardvark-dns dnsperf)
target=$PWD/.venv/bench-names
if [[ ! -e $target/unpacked ]]; then
    archives=$(mktemp -d)
    mkdir "$archives/partial"
    apt-get install -qq --yes --download-only --reinstall --no-install-recommends -o Debug::NoLocking=true \
        -o Dir::Cache::archives="$archives" -o APT::Sandbox::User=root "${packages[@]}" >/dev/null
    rm -rf "$target"
    for package in "$archives"/*.deb; do
        dpkg-deb --extract "$package" "$target"
    done
    touch "$target/unpacked"
    rm -r "$archives"
fi
[[ ${1-} != --unpack ]] || exit 0
exec unshare --net --mount .venv/bin/python bench/names.py "$target" "${1:-5}"
