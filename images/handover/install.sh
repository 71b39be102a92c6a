#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause-Patent
# install.sh [ROOT]: puts the scripts of its own folder into a Debian, the running one or that below
# ROOT, and makes its initramfs anew, so that it boots from a qcow2 that the driver attached.
#
# Promises: where a package is missing, or there is no initramfs to make anew, one line says so and
# nothing was changed. May be run again at any time. Needs root, and for ROOT chroot and unshare.
set -eu

here=$(dirname "$0")
root=${1:-}

stop() {
    echo "install.sh: $1; nothing was changed" >&2
    exit 1
}

# need PACKAGE PROGRAM: where the hook looks for it
missing=
need() {
    [ -e "$root$2" ] || missing="$missing $1"
}

# put FILE PLACE
put() {
    install -D -m 755 "$here/$1" "$root$2"
}

[ -d "$root/etc" ] || stop "${root:-/}: there is no system"
need initramfs-tools /usr/sbin/update-initramfs
need busybox /bin/busybox
need qemu-utils /usr/bin/qemu-nbd
need nbd-client /usr/sbin/nbd-client
[ -z "$missing" ] || stop "packages are missing:$missing"
set -- "$root"/boot/initrd.img-*
[ -e "$1" ] || stop "$root/boot has no initramfs"

put hook /etc/initramfs-tools/hooks/qcow2
put local-top /etc/initramfs-tools/scripts/local-top/qcow2
put init-bottom /etc/initramfs-tools/scripts/init-bottom/qcow2
put reader.sh /usr/lib/qcow2/reader.sh
put shutdown.sh /usr/lib/qcow2/shutdown.sh

if [ -z "$root" ]; then
    update-initramfs -u -k all
else
    # What is mounted here is seen by these commands alone, and gone with them.
    unshare --mount sh -euc '
        for folder in dev proc sys; do mount --rbind "/$folder" "$1/$folder"; done
        chroot "$1" update-initramfs -u -k all' sh "$root"
fi
echo "install.sh: the next boot from a qcow2 takes the image over"
