#!/bin/bash
# Usage: tools/setup.sh build|test|vm|python
#
# Makes the development environment: installs missing packages of the distribution, makes .venv from the
# distribution's own interpreter, and installs sysbox in it. A second run does nothing. `python` installs what a build
# with the distribution's interpreter needs, and prints that interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

build_packages=(gcc libc6-dev musl-tools pkg-config libsystemd-dev)
run_packages=(iptables iproute2 systemd dbus util-linux)
test_packages=(systemd-container gpg groff-base procps e2fsprogs strace busybox-static mmdebstrap zstd bzip2 openssl nftables curl)
vm_packages=(qemu-system-x86 qemu-utils seabios mmdebstrap debian-archive-keyring)

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The first interpreter of the distribution that is new enough; never a shim in PATH.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 /usr/bin/python3.{13,12,11} /usr/local/bin/python3.{13,12,11}; do
        if [[ -x $candidate ]] && "$candidate" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            printf '%s\n' "$candidate"
            return
        fi
    done
}

install_packages() {
    local missing=() name as_root=()
    for name in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || missing+=("$name")
    done
    ((${#missing[@]})) || return 0
    if ((EUID)); then
        command -v sudo >/dev/null || die "as root, run: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing from the distribution: ${missing[*]}"
    [[ -n $(find /var/lib/apt/lists -name '*Packages*' -mmin -1440 -print -quit 2>/dev/null) ]] ||
        "${as_root[@]}" apt-get update -qq >/dev/null
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq --yes --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null
}

distribution() {
    if command -v dpkg-query >/dev/null; then
        install_packages "$@"
    else
        say "not a Debian-like system: these (or what they are called here) must be installed: $*"
    fi
}

# Services for containers with systemd inside, firewalls, databases, a client of machined, a registry, and the programs that sysbox
# is compared and exchanges images with. They are unpacked for the tests, not installed, so that none of them is enabled
# on this machine.
services=(haproxy keepalived nginx rsyslog firewalld ufw libnss-mymachines docker.io containerd runc docker-registry skopeo
    umoci buildah podman redis-server redis-tools)
unpack_services() {
    local target=.venv/test-services archives package version name there missing=()
    # of the version that the distribution has
    version=$(apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' || true)
    [[ -z $version ]] || services+=("postgresql-$version" "postgresql-client-$version")
    there=$(cat "$target/unpacked" 2>/dev/null || true)
    for name in "${services[@]}"; do
        [[ " $there " == *" $name "* ]] || missing+=("$name")
    done
    ((${#missing[@]})) && command -v dpkg-deb >/dev/null || return 0
    say "fetching packages for the tests: ${missing[*]}"
    archives=$(mktemp -d)
    mkdir "$archives/partial"
    apt-get install -qq --yes --download-only --reinstall --no-install-recommends -o Debug::NoLocking=true \
        -o Dir::Cache::archives="$archives" -o APT::Sandbox::User=root "${missing[@]}" >/dev/null
    for package in "$archives"/*.deb; do
        # large, and PostgreSQL works without them
        [[ ${package##*/} == @(libllvm|locales)* ]] && continue
        dpkg-deb --extract "$package" "$archives/root"
    done
    mkdir -p "$target"
    cp -a "$archives/root/." "$target"
    printf '%s\n' "${services[*]}" >"$target/unpacked"
    rm -r "$archives"
}

interpreter() {
    local python headers
    python=$(find_python)
    if [[ -z $python ]]; then
        distribution python3
        python=$(find_python)
    fi
    [[ -n $python ]] || die "Python 3.11 or newer is needed (python3.11, python3.12 or python3.13)"
    # Debian splits the headers and `venv` from the interpreter, under the interpreter's full name.
    headers=$(basename "$(readlink -f "$python")")
    [[ $python == /usr/bin/* ]] && distribution "$headers-dev" "$headers-venv"
    printf '%s\n' "$python"
}

make_environment() {
    local python
    python=$(interpreter)
    say "making .venv from $python"
    "$python" -I -m venv --clear .venv
}

distribution "${build_packages[@]}" "${run_packages[@]}"
if [[ ${1:-} == python ]]; then
    interpreter
    exit
fi
.venv/bin/python -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || make_environment
case ${1:-build} in
    build) .venv/bin/python -I tools/install.py ;;
    test)
        distribution "${test_packages[@]}"
        unpack_services
        .venv/bin/python -I tools/install.py --test
        ;;
    vm)
        distribution "${test_packages[@]}" "${vm_packages[@]}"
        .venv/bin/python -I tools/install.py --test
        ;;
    *) die "usage: tools/setup.sh build|test|vm|python" ;;
esac
