#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause-Patent
# Signs EFI binaries for Secure Boot: each FILE becomes FOLDER/its name, signed, and is verified
# against the certificate. The originals stay as they are, and a FOLDER that was signed before holds
# no older file after a failure. Signing is the one step that is not reproducible: a signature
# states its time.
set -euo pipefail
[ $# -ge 4 ] || { echo "usage: sign.sh KEY CERT FOLDER FILE..." >&2; exit 2; }
key=$1 cert=$2 folder=$3
shift 3

for file in "$key" "$cert" "$@"; do
    [ -r "$file" ] || { echo "sign: cannot read $file" >&2; exit 2; }
done
mkdir -p "$folder"
for file in "$@"; do
    rm -f "$folder/${file##*/}"
done
for file in "$@"; do
    signed=$folder/${file##*/}
    # They tell what they do on both streams; only a failure is worth a line.
    if ! said=$(sbsign --key "$key" --cert "$cert" --output "$signed" "$file" 2>&1 &&
        sbverify --cert "$cert" "$signed" 2>&1); then
        rm -f "$signed"
        echo "sign: $file: $said" >&2
        exit 1
    fi
    echo "$signed"
done
