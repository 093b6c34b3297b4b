#!/bin/sh
# Packs kernel, initrd and command line into one signed EFI program.
#
#   build/uki.sh WORK OUT.efi      takes OUT.initrd, which initrd.sh made; leaves OUT.efi.unsigned too
#
# The same inputs give the same bytes: addresses are fixed, the signature is made at a fixed time.
# More bytes than the image may have are an error.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
work=$1 out=$2
. "$here/image.lock"
initrd=${out%.efi}.initrd
stub=/usr/lib/systemd/boot/efi/linuxx64.efi.stub

cp "$here/cmdline" "$work/cmdline"
printf '%s' "$kernel_release" > "$work/uname"
# Sections follow the stub's own, each on a page of its own.
at=$(objdump -h "$stub" | awk 'function hex(s,   i, n) { n = 0; s = tolower(s); for (i = 1; i <= length(s); i++) n = n * 16 + index("0123456789abcdef", substr(s, i, 1)) - 1; return n }
    NF == 7 { end = hex($4) + hex($3); if (end > last) last = end } END { printf "%d\n", last }')
page() { echo $(( ($1 + 4095) / 4096 * 4096 )); }
set --
for section in .osrel:$work/os-release .cmdline:$work/cmdline .uname:$work/uname .initrd:$initrd ".linux:$work/kernel/boot/vmlinuz-$kernel_release"; do
    file=${section#*:} name=${section%%:*}
    at=$(page "$at")
    set -- "$@" --add-section "$name=$file" --change-section-vma "$name=$at" --set-section-flags "$name=data,readonly"
    at=$((at + $(stat -c %s "$file")))
done
objcopy --enable-deterministic-archives "$@" "$stub" "$out.unsigned"

# TimeDateStamp and CheckSum of the PE header say when it was made: zero (the signature comes after).
pe=$(od -An -tu4 -j60 -N4 "$out.unsigned" | tr -d ' ')
for offset in $((pe + 8)) $((pe + 88)); do
    printf '\000\000\000\000' | dd of="$out.unsigned" bs=1 seek="$offset" conv=notrunc status=none
done
faketime -f '2024-01-01 00:00:00' sbsign --key "$work/keys/db.key" --cert "$work/keys/db.crt" --output "$out" "$out.unsigned" >/dev/null 2>&1
"$here/build/size.sh" "$out"
