#!/bin/bash
# Usage: tools/vm/build-image.sh DIRECTORY ENVIRONMENT
#
# Fills DIRECTORY with what QEMU boots: disk.raw, vmlinuz, initrd, and packages.txt. The guest is Debian 12
# with its kernel for virtual machines, SELinux's policy and the policy module for containers, and
# ENVIRONMENT/ copied over its root. Nothing is mounted on this machine and no loop device is taken: the
# root is a directory that becomes a file system in one go, with the labels of its files in it. Needs root.
set -euo pipefail
umask 022

directory=$1 environment=$2
here=$(cd "$(dirname "$0")" && pwd)
suite=bookworm
packages=(
    linux-image-cloud-amd64 systemd-sysv systemd-container libnss-mymachines udev dbus kmod procps util-linux zstd xz-utils busybox-static strace
    iproute2 iptables nftables iputils-ping libseccomp2 python3
    e2fsprogs btrfs-progs xfsprogs dmsetup thin-provisioning-tools
    selinux-policy-default selinux-policy-dev selinux-policy-src policycoreutils semodule-utils
    checkpolicy selinux-utils
)
no_documents=(man doc locale)

# Where this machine gets Debian from; on one that is no Debian 12, where mmdebstrap gets it from.
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
# without a journal: every boot is of a copy that is thrown away
mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=0 -d "$work/root" "$directory/disk.raw" 6G
