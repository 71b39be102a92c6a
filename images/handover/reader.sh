# SPDX-License-Identifier: BSD-2-Clause-Patent
# Reads what the driver left about an attached image (efi/proto/qcow2_handover.h), for the script
# that attaches it anew. POSIX shell; of other programs only od. Numbers of 64 bits are signed here.
#
# Promises: handover_read sets the variables below, handover_judge says whether what lies there now
# is the image and may be attached; where they fail, $handover_why says why. Nothing is written.
#
#   handover_flags, _virtual, _size, _digest, _kind, _number, _partuuid, _file

handover_guid=53632efa-155c-4c05-b390-1b624e1b93b6
HANDOVER_READONLY=1 HANDOVER_UNSETTLED=2 HANDOVER_LAYERED=4 HANDOVER_OTHER_STATE=8
HANDOVER_KNOWN_FLAGS=15
HANDOVER_DISK=0 HANDOVER_PARTITION=1 HANDOVER_FILE=2

# bytes FILE OFFSET COUNT: as decimal numbers
bytes() {
    od -An -v -tu1 -j "$2" -N "$3" "$1"
}

# number FILE OFFSET COUNT: little-endian
number() {
    value=0 shift=0
    for byte in $(bytes "$@"); do
        value=$((value | byte << shift)) shift=$((shift + 8))
    done
    echo "$value"
}

# crc32 FILE OFFSET COUNT: with the bytes of the field itself as zeros
crc32() {
    crc=$((0xffffffff)) at=0
    for byte in $(bytes "$@"); do
        case $at in 8 | 9 | 10 | 11) byte=0 ;; esac
        crc=$((crc ^ byte)) at=$((at + 1))
        for bit in 0 1 2 3 4 5 6 7; do
            crc=$((crc >> 1 ^ (crc & 1) * 0xedb88320))
        done
    done
    echo $((crc ^ 0xffffffff))
}

# image_digest FILE: of an image's header, without what writes may move
image_digest() {
    hash=-3750763034362895579 # 0xcbf29ce484222325
    for byte in $(bytes "$1" 0 48) $(bytes "$1" 60 12); do
        hash=$(((hash ^ byte) * 0x100000001b3))
    done
    echo "$hash"
}

# image_marks FILE: 1 dirty, 2 corrupt; only images of version 3 have them
image_marks() {
    if [ "$(number "$1" 7 1)" -ge 3 ]; then
        echo $(($(number "$1" 79 1) & 3))
    else
        echo 0
    fi
}

# partuuid TYPE NUMBER SIGNATURE...: as blkid and root= write it; nothing where there is none
partuuid() {
    type=$1 part=$2
    shift 2
    case $type in
    1) printf '%02x%02x%02x%02x-%02x' "$4" "$3" "$2" "$1" "$part" ;;
    2)
        printf '%02x%02x%02x%02x-%02x%02x-%02x%02x-' "$4" "$3" "$2" "$1" "$6" "$5" "$8" "$7"
        shift 8
        printf '%02x%02x-%02x%02x%02x%02x%02x%02x' "$@"
        ;;
    esac
}

# text FILE OFFSET COUNT: with / between the names
text() {
    for byte in $(bytes "$@"); do
        [ "$byte" -ne 92 ] || byte=47
        printf "\\$(printf %03o "$byte")"
    done
}

# handover_read FILE START: what begins at START, behind a variable's attributes or a table's header
handover_read() {
    total=$(number "$1" $(($2 + 4)) 4)
    handover_why="its version is unknown"
    [ "$(number "$1" "$2" 4)" = 1 ] || return 1
    handover_why="it is damaged"
    [ "$total" -ge 68 ] && [ "$total" -le 4096 ] || return 1
    [ "$(crc32 "$1" "$2" "$total")" = "$(number "$1" $(($2 + 8)) 4)" ] || return 1
    handover_flags=$(number "$1" $(($2 + 12)) 4)
    handover_virtual=$(number "$1" $(($2 + 16)) 8)
    handover_size=$(number "$1" $(($2 + 24)) 8)
    handover_digest=$(number "$1" $(($2 + 32)) 8)
    texts=$(($2 + $(number "$1" $(($2 + 40)) 2)))
    handover_kind=$(number "$1" $(($2 + 42)) 1)
    handover_number=$(number "$1" $(($2 + 44)) 4)
    handover_partuuid=$(partuuid "$(number "$1" $(($2 + 43)) 1)" "$handover_number" \
        $(bytes "$1" $(($2 + 48)) 16))
    length=$(number "$1" $(($2 + 64)) 2)
    [ $((texts + length)) -le $(($2 + total)) ] || return 1
    handover_file=$(text "$1" "$texts" "$length")
    # It is looked up below the volume's root, said on the console, and cut by the shell.
    handover_why="its file has no plain name"
    for byte in $(bytes "$1" "$texts" "$length"); do
        [ "$byte" -ge 32 ] && [ "$byte" -ne 127 ] || return 1
    done
    case $handover_kind$handover_file/ in
    */../* | "$HANDOVER_FILE"[!/]*) return 1 ;;
    esac
    handover_why=
}

# handover_judge SOURCE BYTES: of the image that was read last, as it lies in a device or file now
handover_judge() {
    handover_why="it has flags of a later version"
    [ $((handover_flags & ~HANDOVER_KNOWN_FLAGS)) = 0 ] || return 1
    handover_why="a snapshot of it was booted, or it was without its layers"
    [ $((handover_flags & HANDOVER_OTHER_STATE)) = 0 ] || return 1
    # Names of files are followed from the folder of who names them; partitions have no names.
    handover_why="it has layers in other partitions"
    [ $((handover_flags & HANDOVER_LAYERED)) = 0 ] || [ "$handover_kind" = "$HANDOVER_FILE" ] ||
        return 1
    handover_why="it has $2 bytes, the firmware saw $handover_size"
    [ "$2" = "$handover_size" ] || return 1
    handover_why="it is another image: its header's digest differs"
    [ "$(image_digest "$1")" = "$handover_digest" ] || return 1
    # Who only reads does not care how it was left.
    if [ $((handover_flags & HANDOVER_READONLY)) = 0 ]; then
        handover_why="the firmware could not make durable what was written"
        [ $((handover_flags & HANDOVER_UNSETTLED)) = 0 ] || return 1
        handover_why="it is marked dirty or corrupt"
        [ "$(image_marks "$1")" = 0 ] || return 1
    fi
    handover_why=
}
