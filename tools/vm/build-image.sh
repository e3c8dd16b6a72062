#!/bin/bash
# Usage: tools/vm/build-image.sh DIRECTORY ENVIRONMENT
#
# Fills DIRECTORY with the files that QEMU boots: disk.raw, vmlinuz, initrd, and packages.txt. The guest is Debian 12
# with its kernel for virtual machines, SELinux's policy and the policy module for containers, AppArmor's parser, and
# ENVIRONMENT/ copied over its root. Nothing is mounted on this machine and no loop device is used: mke2fs makes
# the file system from the root directory in one step, with the labels of its files. Needs root.
set -euo pipefail
umask 022

directory=$1 environment=$2
here=$(cd "$(dirname "$0")" && pwd)
suite=bookworm
packages=(
    linux-image-cloud-amd64 systemd-sysv systemd-container libnss-mymachines udev dbus kmod procps util-linux zstd xz-utils busybox-static strace
    iproute2 iptables nftables firewalld ufw iputils-ping libseccomp2 python3
    e2fsprogs btrfs-progs xfsprogs dmsetup thin-provisioning-tools
    systemd-resolved
    selinux-policy-default selinux-policy-dev selinux-policy-src policycoreutils semodule-utils
    checkpolicy selinux-utils
    apparmor
    postgresql redis-server
)
no_documents=(man doc locale)

# The Debian 12 sources of this machine; empty on other distributions, where mmdebstrap uses its own.
sources() {
    apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' | sort -u |
        while read -r site release component; do
            [[ $site == */debian* && $release == "$suite"* && $component == main ]] || continue
            echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $release main"
        done
}

work=$(mktemp -d "$directory/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
options=(--mode=root --variant=minbase --format=directory --skip=cleanup/reproducible --aptopt='APT::Install-Recommends "false"')
# tests make databases of their own
options+=(--dpkgopt=force-confold --essential-hook='mkdir -p "$1/etc/postgresql-common"
    echo "create_main_cluster = false" >"$1/etc/postgresql-common/createcluster.conf"')
for name in "${no_documents[@]}"; do
    options+=(--dpkgopt="path-exclude=/usr/share/$name/*")
done
IFS=,
options+=(--include="${packages[*]}")
unset IFS
sources >"$work/sources.list"
mirror=("$work/sources.list")
[[ -s $work/sources.list ]] || mirror=()

if ! mmdebstrap "${options[@]}" \
    --customize-hook="cp -a '$environment/.' \"\$1/\"" \
    --customize-hook="'$here/customise.sh' \"\$1\" '$here'" \
    "$suite" "$work/root" "${mirror[@]}" &>"$directory/build.log"; then
    tail -n 40 "$directory/build.log" >&2
    exit 1
fi

mv "$work"/root/boot/vmlinuz-* "$directory/vmlinuz"
mv "$work"/root/boot/initrd.img-* "$directory/initrd"
chroot "$work/root" dpkg-query --show >"$directory/packages.txt"
# with a journal, as a server's: tests cut its power
mke2fs -q -t ext4 -J size=16 -E lazy_itable_init=0 -d "$work/root" "$directory/disk.raw" 6G
