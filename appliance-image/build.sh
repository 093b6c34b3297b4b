#!/bin/sh
# Builds the appliance image.
#
#   appliance-image/build.sh [OUT]           OUT is target/image
#   appliance-image/build.sh --direct OUT    kernel and initrd only, for QEMU's own card: quick
#
# Leaves in OUT: clinch.efi (the signed system), clinch-uefi.img, clinch-bios.img, clinch.update,
# pxe/ (kernel, initrd, command line), sbom.spdx.json, SHA256SUMS; with --direct, pxe/ alone.
# Exit code 3: the locked kernel is not to be had. From the environment:
#   CLINCH_IMAGE_KEYS     folder of signing keys (OUT/keys, made where there is none)
#   CLINCH_IMAGE_VERSION  version, three numbers (the workspace's, and the commit's time in seconds)
#   CLINCH_BIN, CLINCH_INIT_BIN   ready-made binaries (built where not given)
#   CLINCH_INITRD_LEVEL   pack with zstd at this level, quickly (xz)
set -eu
cd "$(dirname "$0")/.."
direct=
if [ "${1-}" = --direct ]; then direct=yes; shift; fi
out=$(realpath -m "${1:-target/image}")
mkdir -p "$out"
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
LC_ALL=C TZ=UTC
export LC_ALL TZ
umask 022
target=${CARGO_TARGET_DIR:-target}
build=appliance-image/build

. $build/programs.sh
if [ -z "${CLINCH_BIN-}" ]; then
    program release '' -p clinch
    CLINCH_BIN=$target/$triple/release/clinch
fi
if [ -z "${CLINCH_INIT_BIN-}" ]; then
    program appliance "$static" -p clinch-init --bins
    CLINCH_INIT_BIN=$target/$triple/appliance/clinch-init
fi

if [ -z "$direct" ]; then
    keys=${CLINCH_IMAGE_KEYS:-$out/keys}
    $build/keys.sh "$keys"
    [ "$(realpath "$keys")" = "$out/keys" ] || { rm -rf "$out/keys"; cp -r "$keys" "$out/keys"; }
fi

version=${CLINCH_IMAGE_VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1).$SOURCE_DATE_EPOCH}
cat > "$out/os-release" <<V
ID=clinch
NAME=Clinch
PRETTY_NAME="Clinch appliance $version"
VERSION_ID=$version
IMAGE_ID=clinch
IMAGE_VERSION=$version
BUILD_EPOCH=$SOURCE_DATE_EPOCH
V

$build/kernel.sh "$out"
if [ -n "$direct" ]; then
    # Without the folders of drivers.
    sed '/\/$/d' appliance-image/modules.list > "$out/modules.list"
    CLINCH_IMAGE_MODULES=$out/modules.list
    export CLINCH_IMAGE_MODULES
fi
$build/root.sh "$out" "$out/root" "$CLINCH_BIN" "$CLINCH_INIT_BIN"
$build/initrd.sh "$out/root" "$out/clinch.initrd"
$build/pxe.sh "$out"
[ -z "$direct" ] || exit 0
$build/uki.sh "$out" "$out/clinch.efi"
$build/disk.sh uefi "$out" "$out/clinch.efi" "$out/clinch-uefi.img" ${CLINCH_IMAGE_CONFIG:+"$CLINCH_IMAGE_CONFIG"}
$build/disk.sh bios "$out" "$out/clinch.efi" "$out/clinch-bios.img" ${CLINCH_IMAGE_CONFIG:+"$CLINCH_IMAGE_CONFIG"}
$build/update.sh "$out"
$build/sbom.sh "$out"
(cd "$out" && sha256sum clinch.efi clinch-uefi.img clinch-bios.img clinch.update pxe/vmlinuz pxe/initrd sbom.spdx.json > SHA256SUMS)
echo "clinch appliance $version: $(stat -c %s "$out/clinch.efi") bytes signed, in $out"
