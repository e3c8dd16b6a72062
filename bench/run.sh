#!/bin/bash
# Usage: bench/run.sh [--quick] [--runs N] [--only PEER,PEER...]
#        bench/run.sh --crowd [--count N] [--idle SECONDS] [--only PEER,PEER...]
#        bench/run.sh --attacks [--only PEER,PEER...]
#        bench/run.sh --lines [--only docker]
#        bench/run.sh --pull [--runs N] [--only PEER,PEER...]
#        bench/run.sh --saveload [--runs N] [--only PEER,PEER...]
#        bench/run.sh --push [--runs N] [--only PEER,PEER...]
#        bench/run.sh --ports [--runs N]
#        bench/run.sh --build [--runs N] [--only PEER,PEER...]
#        bench/run.sh --network [--runs N] [--seconds N]
#        bench/run.sh --sockets [--runs N]
#
# Measures sysbox beside docker, podman, systemd-nspawn, crun and runc: installs the missing ones from the
# distribution, boots an embedded host with its own network, runs bench.py (or crowd.py, attacks.py, lines.py, pull.py,
# saveload.py, push.py, ports.py, build.py, network.py, sockets.py) on it, and writes the report into its part of bench/RESULTS.md (but for attacks). At the end it removes the host with its
# daemons, images and containers.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
    buildah busybox-static conmon crun docker.io golang-github-containers-common
    podman runc systemd-container
)
name=bench-$$
sysbox=$PWD/.venv/bin/sysbox
results=$PWD/bench/RESULTS.md
guard=/usr/sbin/policy-rc.d
script=bench.py

say() { printf 'bench: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The packages must not start a daemon on this machine (deb-systemd-invoke(1), invoke-rc.d(8)): the peers
# run only on the embedded host.
install_peers() {
    local missing=() package guarded=
    for package in "${packages[@]}"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    say "installing from the distribution, without starting any service: ${missing[*]}"
    [[ -n $(find /var/lib/apt/lists -name '*Packages*' -mmin -1440 -print -quit 2>/dev/null) ]] ||
        apt-get update -qq >/dev/null
    if [[ ! -e $guard ]]; then
        guarded=yes
        printf '#!/bin/sh\nexit 101\n' >"$guard"
        chmod 755 "$guard"
    fi
    local status=0
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends \
        -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null || status=$?
    [[ -z $guarded ]] || rm -f "$guard"
    ((status == 0)) || die "apt-get install failed with status $status"
    if [[ -d /run/systemd/system && " ${missing[*]} " == *" docker.io "* ]]; then
        say "docker.io has enabled its daemon for the next boot; to prevent that:" \
            "systemctl disable docker.service docker.socket"
    fi
}

stop() {
    status=$?
    trap - EXIT
    rm -f "$printed"
    "$sysbox" host stop --name "$name" --timeout 60 --purge >&2 || status=1
    exit "$status"
}

[[ -x $sysbox ]] || die "run \`make build\` first"
if ((EUID)); then
    command -v sudo >/dev/null || die "must be root"
    exec sudo "$0" "$@"
fi
if [[ ${1:-} == --crowd ]]; then
    script=crowd.py
    shift
elif [[ ${1:-} == --lines ]]; then
    script=lines.py
    shift
elif [[ ${1:-} == --pull ]]; then
    script=pull.py
    shift
elif [[ ${1:-} == --saveload ]]; then
    script=saveload.py
    shift
elif [[ ${1:-} == --push ]]; then
    script=push.py
    shift
elif [[ ${1:-} == --build ]]; then
    script=build.py
    shift
elif [[ ${1:-} == --ports ]]; then
    script=ports.py
    shift
elif [[ ${1:-} == --network ]]; then
    script=network.py
    packages+=(iperf3)
    shift
elif [[ ${1:-} == --sockets ]]; then
    script=sockets.py
    shift
elif [[ ${1:-} == --attacks ]]; then
    script=attacks.py
    shift
fi
if [[ $script == ports.py || $script == sockets.py ]]; then
    : # they have no peers
elif command -v dpkg-query >/dev/null; then
    install_peers
else
    say "not a Debian-like system: peers that are not installed are left out (packages: ${packages[*]})"
fi

# the embedded host's network leads nowhere
[[ $script != network.py ]] || bench/names.sh --unpack

printed=$(mktemp)
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$sysbox" host start --name "$name" --private-network >/dev/null
status=0
"$sysbox" host exec --name "$name" -- "$PWD/.venv/bin/python" -B "$PWD/bench/$script" "$@" |
    tee "$printed" || status=$?
if ((status < 2)) && [[ $script != attacks.py ]]; then
    "$PWD/.venv/bin/python" -B "$PWD/bench/keep.py" "$results" <"$printed"
    [[ -z ${SUDO_UID:-} ]] || chown "$SUDO_UID:$SUDO_GID" "$results"
    say "the report is in bench/RESULTS.md"
fi
exit "$status"
