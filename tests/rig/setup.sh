#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause-Patent
# Sets a Debian 12 machine up: installs the packages that are missing, by name. Run as root or where
# sudo works it installs them itself; otherwise it prints the one line to run and fails. On a machine
# that has them all it costs one dpkg-query and touches nothing.
set -euo pipefail

packages=(
    clang lld llvm gnu-efi make                          # the driver
    xz-utils bzip2                                       # the decoders' sources
    nbdkit nbdkit-plugin-dev libnbd-bin libcmocka-dev    # the host front end and its clients
    python3-libnbd fio                                   # clients that write
    libclang-rt-dev                                      # sanitizers of the unit tests
    zlib1g libzstd1                                      # compressors of the unit tests
    qemu-system-x86 qemu-utils ovmf                      # firmware, machine, reference
    qemu-system-arm qemu-efi-aarch64                     # the same for 64-bit Arm
    sbsigntool openssl                                   # Secure Boot
    mtools dosfstools util-linux fdisk                   # disks
    busybox-static systemd-boot-efi binutils             # the Linux of the demo
    grub-efi-amd64-bin grub-common                       # loaders that live in images
    debootstrap e2fsprogs                                # the Debian of make run IMAGE=debian
    python3 python3-pytest python3-pytest-xdist valgrind # the tests and benchmarks
)
# What only the long tests need: setup.sh proofs. EVA takes most of it, 900 MB.
proofs=(
    gcc cppcheck frama-c-base                            # analyzers
    clang-19 llvm-19 libclang-rt-19-dev                  # coverage of conditions
)
[ "${1:-}" != proofs ] || packages+=("${proofs[@]}")

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

sudo=
if [ "$(id -u)" != 0 ]; then
    sudo="sudo -n"
    if ! sudo -n true 2>/dev/null; then
        echo "setup: packages are missing; run: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
fi
echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
    $sudo apt-get install -y -q --no-install-recommends "${missing[@]}"
}
# The lists of a fresh machine may be absent or old: one update, only where the first try fails.
if ! install >"$log" 2>&1; then
    { $sudo apt-get update -q && install; } >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
fi
