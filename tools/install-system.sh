#!/bin/bash
# Usage: tools/install-system.sh install|links|uninstall
#
# Installs sysbox for a whole machine, without its package manager: an environment in PREFIX by pip, and below LINKS
# the command, the man pages, completion and systemd's units. `links` makes only the files below LINKS.
# PREFIX/installed lists those; `uninstall` removes them and PREFIX.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022

prefix=${PREFIX:-/opt/sysbox}
links=${LINKS:-/usr/local}
list=$prefix/installed

say() { printf 'install: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[[ $prefix == /* && $links == /* ]] || die "PREFIX and LINKS must be absolute paths"

# Calls systemctl if systemd runs and reads units below LINKS.
tell_systemd() {
    [[ -d /run/systemd/system && $links == /usr/local ]] || return 0
    systemctl "$@" || say "systemctl $* failed"
}

place() { # FILE: makes a new file from standard input, and adds it to the list
    mkdir -p "$(dirname "$1")"
    rm -f "$1"
    cat >"$1"
    printf '%s\n' "$1" >>"$list"
}

point() { # LINK TARGET
    mkdir -p "$(dirname "$1")"
    ln -sfn "$2" "$1"
    printf '%s\n' "$1" >>"$list"
}

# A new file has the label of its directory, and the command needs its own (tools/install-selinux.sh).
label() {
    [[ -e /sys/fs/selinux/enforce ]] && command -v restorecon >/dev/null || return 0
    restorecon -R "$prefix"
    xargs -r -d '\n' restorecon -- <"$list"
}

make_links() {
    local page unit
    [[ -x $prefix/bin/sysbox ]] || die "$prefix/bin/sysbox is missing: \`make install\` makes it"
    # an older version may have installed files that this one does not have
    remove_links
    point "$links/bin/sysbox" "$prefix/bin/sysbox"
    for page in "$prefix"/man/man[15]/sysbox*.[15]; do
        point "$links/share/${page#"$prefix/"}" "$page"
    done
    "$prefix/bin/sysbox" completion bash | place "$links/share/bash-completion/completions/sysbox"
    "$prefix/bin/sysbox" completion zsh | place "$links/share/zsh/site-functions/_sysbox"
    "$prefix/bin/sysbox" completion fish | place "$links/share/fish/vendor_completions.d/sysbox.fish"
    for unit in sysbox-boot.service sysbox-firewall.service sysbox-auto-update.service sysbox-auto-update.timer; do
        sed "s|=sysbox |=$links/bin/sysbox |" "systemd/system/$unit" | place "$links/lib/systemd/system/$unit"
    done
    sed "s|exec sysbox |exec $links/bin/sysbox |" systemd/system-generators/sysbox-generator |
        place "$links/lib/systemd/system-generators/sysbox-generator"
    chmod 755 "$links/lib/systemd/system-generators/sysbox-generator"
    place "$links/lib/systemd/system/sysbox.slice" <systemd/system/sysbox.slice
    place "$links/lib/tmpfiles.d/sysbox.conf" <systemd/tmpfiles.d/sysbox.conf
    label
    tell_systemd daemon-reload
    tell_systemd enable --now --quiet sysbox-boot.service sysbox-firewall.service
}

remove_links() {
    [[ -e $list ]] || return 0
    xargs -r -d '\n' rm -f -- <"$list"
    rm -f "$list"
}

ours() {
    [[ -e $list || -e $prefix/pyvenv.cfg && -e $prefix/bin/sysbox ]]
}

install() {
    # `venv` accepts any directory, and `uninstall` removes all of it
    ours || [[ ! -e $prefix || -z $(ls -A "$prefix") ]] || die "$prefix has other files in it: choose another PREFIX"
    mkdir -p "$prefix" 2>/dev/null && [[ -w $prefix ]] || die "$prefix cannot be written: run it as root"
    if ! "$prefix/bin/python" -I -m pip --version &>/dev/null; then # a new environment, or a changed interpreter
        remove_links
        "$(tools/setup.sh python)" -I -m venv --clear "$prefix"
    fi
    touch "$list"
    say "building sysbox into $prefix"
    "$prefix/bin/python" -I -m pip install --quiet --disable-pip-version-check --upgrade "$PWD"
    make_links
    say "$links/bin/sysbox is $("$prefix/bin/sysbox" --version)"
}

uninstall() {
    [[ -e $prefix/installed ]] || die "nothing that \`make install\` made is in $prefix"
    tell_systemd disable --now --quiet sysbox-boot.service sysbox-firewall.service sysbox-auto-update.timer
    remove_links
    rm -rf "$prefix"
    tell_systemd daemon-reload
    say "removed $prefix; containers, images and volumes are still in /var/lib/sysbox"
}

case ${1:-} in
    install) install ;;
    links) make_links ;;
    uninstall) uninstall ;;
    *) die "usage: tools/install-system.sh install|links|uninstall" ;;
esac
