#!/bin/bash
# Usage: tools/vm/customise.sh ROOT TOOLS
#
# Turns a fresh Debian below ROOT, with /proc mounted in it, into the guest. Called by build-image.sh.
set -euo pipefail

root=$1 tools=$2

# as on an administrator's machine, by `make install-selinux`
policy() {
    mkdir -p "$root"/tmp/sysbox/{tools,contrib}
    cp "$tools/../install-selinux.sh" "$root/tmp/sysbox/tools/"
    cp -r "$tools/../../contrib/selinux" "$root/tmp/sysbox/contrib/"
    chroot "$root" /tmp/sysbox/tools/install-selinux.sh install
    rm -rf "$root/tmp/sysbox"
}

configure() {
    echo sysbox-vm >"$root/etc/hostname"
    printf '127.0.0.1 localhost sysbox-vm\n::1 localhost\n' >"$root/etc/hosts"
    echo '/dev/vda / ext4 rw,noatime 0 0' >"$root/etc/fstab"
    printf 'SELINUX=permissive\nSELINUXTYPE=default\n' >"$root/etc/selinux/config"
    echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
    chroot "$root" passwd --delete root
    # a snapshot is resumed days after it was made: all timers would expire at once
    chroot "$root" systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
        e2scrub_all.timer fstrim.timer systemd-tmpfiles-clean.timer getty@tty1.service serial-getty@ttyS0.service \
        postgresql.service redis-server.service
    # a test starts the one that it is about
    chroot "$root" systemctl disable --quiet firewalld.service ufw.service
    mkdir -p "$root/etc/systemd/journald.conf.d"
    printf '[Journal]\nStorage=volatile\nAudit=no\n' >"$root/etc/systemd/journald.conf.d/vm.conf"
}

# systemd-resolved runs only while a test has started it
resolver() {
    chroot "$root" systemctl disable --quiet systemd-resolved.service
    [[ -e $root/etc/.resolv.conf.systemd-resolved.bak ]] || return 0
    mv "$root/etc/.resolv.conf.systemd-resolved.bak" "$root/etc/resolv.conf"
}

agent() {
    install -D -m 644 "$tools/wire.py" "$root/usr/local/lib/vm-agent/wire.py"
    install -m 755 "$tools/agent.py" "$root/usr/local/lib/vm-agent/agent.py"
    install -m 644 "$tools/vm-agent.service" "$root/etc/systemd/system/vm-agent.service"
    chroot "$root" systemctl enable --quiet vm-agent.service
}

policy
configure
resolver
agent
# last, so that all files are labelled; for this kernel the labels are ordinary attributes
chroot "$root" setfiles -F -e /proc -e /sys -e /dev /etc/selinux/default/contexts/files/file_contexts /
