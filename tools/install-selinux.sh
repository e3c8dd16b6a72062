#!/bin/bash
# Usage: tools/install-selinux.sh install|uninstall
#
# Compiles contrib/selinux against this machine's SELinux policy, loads it, and labels those files of sysbox that are
# there, as of an installation in PREFIX. Where the policy lacks the types of container-selinux (Debian), the reference
# policy's module for containers is compiled and loaded with it. Without a running SELinux, as in an image that is being
# made, the modules are installed for the next boot.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

prefix=${PREFIX:-/opt/sysbox}
makefile=/usr/share/selinux/devel/Makefile
sources=(/usr/src/selinux-policy-src.tar.*)
labelled=(/usr/bin/sysbox /usr/lib/python3*/*/sysbox "$prefix" /usr/local/lib/systemd /etc/sysbox /var/lib/sysbox /run/sysbox)

say() { printf 'install-selinux: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

require() {
    [[ $prefix == /* ]] || die "PREFIX must be an absolute path"
    ((EUID == 0)) || die "only root can load a policy: run it as root"
    type=$(sed -n 's/^SELINUXTYPE *= *\([^ ]*\).*/\1/p' /etc/selinux/config 2>/dev/null | tail -n 1)
    [[ $type && -d /etc/selinux/$type/policy ]] && command -v semodule >/dev/null ||
        die "this machine has no SELinux policy, so there is nothing to do (Debian has selinux-policy-default)"
}

running() { [[ -e /sys/fs/selinux/enforce ]]; }

loaded() { semodule --store "$type" -l | grep -qxE "$1"; } # of our modules

# Whether the policy has a type. In the compiled policy, names are plain text.
has_type() { grep -qaF "$1" "/etc/selinux/$type/policy"/policy.*; }

call_semodule() {
    local options=(--store "$type")
    running || options+=(--noreload)
    semodule "${options[@]}" "$@"
}

relabel() {
    local path
    running || return 0
    for path in "${labelled[@]}"; do
        [[ ! -e $path ]] || restorecon -R "$path"
    done
}

# The reference policy calls the files of /run by the name that container-selinux has for the manager's processes.
reference_container() {
    [[ -e ${sources[0]} ]] ||
        die "the policy has no types for containers: install container-selinux, or on Debian selinux-policy-src"
    tar -xf "${sources[0]}" -C "$build" --wildcards --strip-components=4 '*/policy/modules/services/container.[tf][ec]'
    sed -i 's/\bcontainer_runtime_t\b/container_var_run_t/g' "$build"/container.{te,fc}
    cp contrib/selinux/sysbox_types.te contrib/selinux/sysbox_ranges.cil "$build"
}

install() {
    local modules=(sysbox.pp) ranges=() regular
    [[ -e $makefile ]] ||
        die "$makefile is missing: install selinux-policy-dev (Debian) or selinux-policy-devel (Fedora)"
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    cp contrib/selinux/sysbox.{te,fc,if} "$build"
    regular=$(sed 's/[][\.*^$()+?{}|]/\\&/g' <<<"$prefix")
    sed -i "s|^/opt/sysbox/|${regular//\\/\\\\}/|" "$build/sysbox.fc"
    if loaded sysbox_types || ! has_type container_runtime_exec_t; then
        reference_container
        modules=(container.pp sysbox_types.pp sysbox.pp)
        ranges=(sysbox_ranges.cil)
    fi
    make -C "$build" --no-print-directory -f "$makefile" NAME="$type" "${modules[@]}" >"$build/log" 2>&1 ||
        { cat "$build/log" >&2; die "the policy module cannot be compiled, for the reason above"; }
    modules+=("${ranges[@]}")
    call_semodule --install "${modules[@]/#/"$build"/}"
    relabel
    modules=("${modules[@]%.cil}")
    say "loaded ${modules[*]%.pp} into the policy \"$type\""
}

uninstall() {
    local modules=()
    loaded sysbox && modules+=(--remove sysbox)
    # with it came that of the reference policy
    loaded sysbox_types && modules+=(--remove sysbox_types --remove container)
    loaded sysbox_ranges && modules+=(--remove sysbox_ranges)
    ((${#modules[@]})) || die "the policy \"$type\" has no module of sysbox"
    call_semodule "${modules[@]}"
    relabel
    say "removed it from the policy \"$type\""
}

case ${1:-} in
    install | uninstall) require && "$1" ;;
    *) die "usage: tools/install-selinux.sh install|uninstall" ;;
esac
