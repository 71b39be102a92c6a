#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause-Patent
# Fetches what the build needs of others and unpacks it below FOLDER: of "decoders" (the default)
# zlib/ and zstd/, of "arm" gnu-efi's headers for 64-bit Arm, which no package of another
# architecture has, as gnu-efi/; and stamp-decoders or stamp-arm last. A pin is the sha256 of an upstream tarball, which outlives the revisions of
# a Debian package; any revision that has this tarball will do. They come through apt from wherever
# this machine's apt gets its packages, as source packages and with a state of their own: root is not
# needed, and the system's lists, caches and hooks are not touched. Tarballs that are there already
# are checked and not fetched again.
set -euo pipefail
what=${2:-decoders}
case $#:$what in
[12]:decoders | 2:arm) ;;
*) echo "usage: sources.sh FOLDER [decoders|arm]" >&2; exit 2 ;;
esac

# what, package, sha256, tarball
pins=(
    "decoders zlib    71feb7947e3c00ef125f83b79a4e529bde31171e5babe48b391f06758d1ab0a1 zlib_1.2.13.dfsg.orig.tar.bz2"
    "decoders libzstd 8cf4bbb65e77ec348d052c8d6230eba66d435bddf64c8b5be2fcb16880c19953 libzstd_1.5.4+dfsg2.orig.tar.xz"
    "arm      gnu-efi 931a257b9c5c1ba65ff519f18373c438a26825f2db7866b163e96d1b168f20ea gnu-efi_3.0.15.orig.tar.bz2"
)
tries_max=2

die() {
    echo "sources: $*" >&2
    exit 1
}

script=$(realpath "$0")
{ mkdir -p "$1" && cd "$1"; } 2>/dev/null || die "cannot write to $1"
# Builds share this folder: who comes second finds it done.
exec 9>.lock
flock 9
stamp=stamp-$what
[ ! "$stamp" -nt "$script" ] || exit 0

state=$(mktemp -d "$PWD/state.XXXXXX")
trap 'rm -rf "$state"' EXIT
log=$state/log

# The machine's own apt sources with deb-src for deb, and nothing else of its state. Settings of the
# machine (proxies, credentials) hold; its hooks do not run: some of them clear the system's caches.
private_apt() {
    local file
    mkdir -p "$state"/{parts,lists/partial,cache/archives/partial}
    for file in /etc/apt/sources.list.d/*.sources; do
        [ ! -r "$file" ] || sed 's/^Types:.*/Types: deb-src/I' "$file" >"$state/parts/${file##*/}"
    done
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ ! -r "$file" ] || sed -nE 's/^[[:space:]]*deb(-src)?[[:space:]]+/deb-src /p' "$file"
    done | sort -u >"$state/parts/lines.list"
    cat >"$state/apt.conf" <<END
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$state/parts";
Dir::State::Lists "$state/lists";
Dir::Cache "$state/cache";
Debug::NoLocking "1";
APT::Sandbox::User "";
Acquire::Languages "none";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
END
}

# The first version of package $1 whose tarball has the sha256 $2.
version_of() {
    { apt-cache -c "$state/apt.conf" showsrc "$1" 2>>"$log" || true; } | awk -v sha="$2" '
        /^Version:/ { version = $2 }
        $1 == sha && !found { found = 1; print version }'
}

is_there() {
    [ -f "$2" ] && echo "$1  $2" | sha256sum -c --status
}

fetch() {
    local package=$1 sha=$2 tarball=$3 version try
    for ((try = 1; try <= tries_max; try++)); do
        # What an update cannot get is seen in what is missing then.
        [ -d "$state/parts" ] || private_apt
        apt-get -c "$state/apt.conf" -qq update >>"$log" 2>&1 || true
        version=$(version_of "$package" "$sha")
        [ -n "$version" ] || continue
        apt-get -c "$state/apt.conf" -qq source --download-only --tar-only \
            "$package=$version" >>"$log" 2>&1 || true
        ! is_there "$sha" "$tarball" || return 0
    done
    die "apt cannot get $tarball, sha256 $sha: $(grep -m 1 -E '^[EW]:' "$log" ||
        echo "no package source of Debian 12 has it")"
}

for pin in "${pins[@]}"; do
    read -r kind package sha tarball <<<"$pin"
    [ "$kind" = "$what" ] || continue
    is_there "$sha" "$tarball" || fetch "$package" "$sha" "$tarball"
done

unpack() {
    local folder=$1 tarball=$2
    shift 2
    mkdir "$state/$folder"
    tar -xf "$tarball" -C "$state/$folder" --strip-components=1 --wildcards \
        --no-wildcards-match-slash "$@" || die "cannot unpack $tarball"
    rm -rf "$folder"
    mv "$state/$folder" "$folder"
}
case $what in
decoders)
    unpack zlib zlib_*.tar.* 'zlib-*/README' 'zlib-*/inf*.[ch]' 'zlib-*/adler32.c' \
        'zlib-*/z*.h'
    unpack zstd libzstd_*.tar.* 'zstd-*/LICENSE' 'zstd-*/lib/zstd*.h' 'zstd-*/lib/common/*' \
        'zstd-*/lib/decompress/*.[ch]' 'zstd-*/build/single_file_libs/zstddeclib-in.c'
    ;;
arm)
    unpack gnu-efi gnu-efi_*.tar.* 'gnu-efi-*/README.efilib' 'gnu-efi-*/inc/*.h' \
        'gnu-efi-*/inc/aarch64/*.h' 'gnu-efi-*/inc/protocol/*.h'
    ;;
esac
touch "$stamp"
