#!/bin/sh
# What a network boot needs: build/pxe.sh OUT leaves OUT/pxe.
#
# clinch.efi itself is for UEFI HTTP boot: one signed file. The parts are for PXE with iPXE or
# pxelinux, where nothing checks a signature.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
out=$1
. "$here/image.lock"
mkdir -p "$out/pxe"
cp "$out/kernel/boot/vmlinuz-$kernel_release" "$out/pxe/vmlinuz"
cp "$out/clinch.initrd" "$out/pxe/initrd"
cp "$here/cmdline" "$out/pxe/cmdline"
# shellcheck disable=SC2016 # iPXE's variable
printf '#!ipxe\nkernel vmlinuz initrd=initrd %s\ninitrd initrd\nboot\n' "$(cat "$here/cmdline")" > "$out/pxe/boot.ipxe"
