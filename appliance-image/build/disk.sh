#!/bin/sh
# Lays out disk images, without loop devices or mounts.
#
#   build/disk.sh uefi WORK UKI OUT.img [CONFIG]   GPT: EFI system partition with systemd-boot, state
#   build/disk.sh bios WORK UKI OUT.img [CONFIG]   MBR: boot partition with syslinux, state
#   build/disk.sh volume CONFIG OUT.img            a configuration volume, labelled CLINCH
#   build/disk.sh state CONFIG OUT.img             a state partition that has a configuration in force
#
# CONFIG is a folder with machine.toml, clinch.toml and what they name; it becomes the first
# configuration of the state partition. Identifiers are fixed, so that the same inputs give the same
# bytes; `flash` gives a machine identifiers of its own.
set -eu
MIB=1048576
boot_mib=72
state_mib=64
disk_id=4f5c1f0e-2a53-4d0c-9a43-0c11c4edc0de

# put FILE IMAGE PATH
put() {
    touch -d "@$SOURCE_DATE_EPOCH" "$1"
    mcopy -o -m -i "$2" "$1" "::$3"
}

state() { # OUT CONFIG
    tree=$work/state-tree
    rm -rf "$tree"
    mkdir -p "$tree/generations" "$tree/cache"
    if [ -n "$2" ]; then
        cp -r "$2" "$tree/generations/1"
        ln -s generations/1 "$tree/current"
        chmod 750 "$tree/generations/1"
        find "$tree/generations/1" -type d -exec chmod 750 {} +
        find "$tree/generations/1" -type f -exec chmod 600 {} +
        chown -R 900:900 "$tree/generations/1"
    fi
    chown 900:900 "$tree/cache"
    chmod 700 "$tree/cache"
    find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    rm -f "$1"
    truncate -s ${state_mib}M "$1"
    E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH mke2fs -q -t ext4 -m 0 -L clinch-state -U 6f0d2b1c-5a0e-4d27-8c43-c11c4c11c4aa \
        -E hash_seed=6f0d2b1c-5a0e-4d27-8c43-c11c4c11c4bb,lazy_itable_init=0,lazy_journal_init=0 -d "$tree" "$1"
    # mke2fs copies the times of change of the inodes, which `touch` cannot set.
    {
        echo "set_current_time @$SOURCE_DATE_EPOCH"
        (cd "$tree" && find . -mindepth 1) | sed "s|^\.\(.*\)|set_inode_field \1 ctime @$SOURCE_DATE_EPOCH|"
    } > "$work/state.debugfs"
    E2FSPROGS_FAKE_TIME=$SOURCE_DATE_EPOCH debugfs -w -f "$work/state.debugfs" "$1" >/dev/null 2>&1
}

uefi() {
    version=$(sed -n 's/^IMAGE_VERSION=//p' "$work/os-release")
    truncate -s $(((boot_mib + state_mib + 2) * MIB)) "$out"
    sfdisk -q "$out" <<T
label: gpt
label-id: $disk_id
start=2048, size=$((boot_mib * 2048)), type=uefi, name="clinch-boot", uuid=4f5c1f0e-2a53-4d0c-9a43-0c11c4ed0001
start=$(((boot_mib + 1) * 2048)), size=$((state_mib * 2048)), type=linux, name="clinch-state", uuid=4f5c1f0e-2a53-4d0c-9a43-0c11c4ed0002
T
    fat=$work/boot.fat
    rm -f "$fat"
    truncate -s ${boot_mib}M "$fat"
    mkfs.vfat -F 32 -i C11CB007 -n CLINCHBOOT --invariant "$fat" >/dev/null
    mmd -i "$fat" ::EFI ::EFI/BOOT ::EFI/Linux ::loader ::loader/keys ::loader/keys/auto
    faketime -f '2024-01-01 00:00:00' sbsign --key "$work/keys/db.key" --cert "$work/keys/db.crt" \
        --output "$work/BOOTX64.EFI" /usr/lib/systemd/boot/efi/systemd-bootx64.efi >/dev/null 2>&1
    # `manual`: the menu offers to enrol the keys while the firmware is in setup mode; nothing happens by itself.
    printf 'timeout 0\neditor no\nauto-firmware yes\nsecure-boot-enroll manual\n' > "$work/loader.conf"
    put "$work/BOOTX64.EFI" "$fat" EFI/BOOT/BOOTX64.EFI
    put "$work/loader.conf" "$fat" loader/loader.conf
    for key in PK KEK db; do put "$work/keys/$key.auth" "$fat" loader/keys/auto/$key.auth; done
    put "$uki" "$fat" "EFI/Linux/clinch-a_$version.efi"
    dd if="$fat" of="$out" bs=1M seek=1 conv=notrunc,sparse status=none
    state "$work/state.ext4" "$config"
    dd if="$work/state.ext4" of="$out" bs=1M seek=$((boot_mib + 1)) conv=notrunc,sparse status=none
}

bios() {
    truncate -s $(((boot_mib + state_mib + 2) * MIB)) "$out"
    sfdisk -q "$out" <<T
label: dos
label-id: 0xc11cb105
start=2048, size=$((boot_mib * 2048)), type=c, bootable
start=$(((boot_mib + 1) * 2048)), size=$((state_mib * 2048)), type=83
T
    . "$(dirname "$0")/../image.lock"
    fat=$work/bios.fat
    rm -f "$fat"
    truncate -s ${boot_mib}M "$fat"
    # The hidden sectors (-h) tell syslinux where the partition begins.
    mkfs.vfat -F 32 -h 2048 -i C11CB105 -n CLINCHBIOS --invariant "$fat" >/dev/null
    printf 'serial 0 115200\nprompt 0\ntimeout 1\ndefault clinch\nlabel clinch\n  kernel /vmlinuz\n  initrd /initrd\n  append %s\n' \
        "$(cat "$work/cmdline")" > "$work/syslinux.cfg"
    put "$work/kernel/boot/vmlinuz-$kernel_release" "$fat" vmlinuz
    put "${uki%.efi}.initrd" "$fat" initrd
    put "$work/syslinux.cfg" "$fat" syslinux.cfg
    faketime -f '2024-01-01 00:00:00' syslinux --install "$fat"
    dd if="$fat" of="$out" bs=1M seek=1 conv=notrunc,sparse status=none
    dd if=/usr/lib/syslinux/mbr/mbr.bin of="$out" bs=440 count=1 conv=notrunc status=none
    state "$work/state.ext4" "$config"
    dd if="$work/state.ext4" of="$out" bs=1M seek=$((boot_mib + 1)) conv=notrunc,sparse status=none
}

volume() {
    rm -f "$2"
    truncate -s 8M "$2"
    mkfs.vfat -n CLINCH --invariant "$2" >/dev/null
    for file in "$1"/*; do mcopy -s -o -m -i "$2" "$file" ::; done
}

kind=$1
if [ "$kind" = volume ]; then volume "$2" "$3"; exit; fi
if [ "$kind" = state ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    state "$3" "$2"
    exit
fi
work=$2 uki=$3 out=$4 config=${5-}
rm -f "$out"
"$kind"
