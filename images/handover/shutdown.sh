#!/bin/busybox sh
# SPDX-License-Identifier: BSD-2-Clause-Patent
# Runs as process 1 when the system ends, on a root of its own: unmounts what is left of the old
# one, lets go of the images, and does what was asked for ($1: poweroff, reboot, halt, kexec).
#
# Promises: an image is let go only after its file systems were unmounted, or at least take no more
# writes; how long that may take is bounded. Needs nothing but busybox.

export PATH=/bin
busybox --install -s /bin
exec >/dev/console 2>&1
WAIT_S=60

# The deepest first: who is mounted last stands last.
for round in 1 2 3; do
    for point in $(awk '$2 ~ "^/oldroot" { print $2 }' /proc/mounts | tac); do
        umount "$point" 2>/dev/null
    done
done
grep -q ' /oldroot ' /proc/mounts && mount -o remount,ro /oldroot

for file in /qcow2/*.pid; do
    [ -e "$file" ] || continue
    pid=$(cat "$file") device=${file##*/}
    kill -TERM "$pid"
    for second in $(seq "$WAIT_S"); do
        [ -d "/proc/$pid" ] || break
        sleep 1
    done
    if [ -d "/proc/$pid" ]; then
        echo "qcow2: ${device%.pid} is still in use"
    else
        echo "qcow2: ${device%.pid} is let go"
    fi
done
for point in $(awk '$2 ~ "/qcow2/" { print $2 }' /proc/mounts | tac); do umount "$point"; done
sync
case $1 in
reboot | kexec) reboot -f ;;
halt) halt -f ;;
*) poweroff -f ;;
esac
