#!/bin/sh
# Builds the image a second time, programs and all, from a copy of the sources in another folder, and
# compares. Of the first build only the keys and the fetched kernel are used.
#
# CLINCH_BIN and CLINCH_INIT_BIN, where given, are taken by both builds as they are.
set -eu
cd "$(dirname "$0")/.."
target=$(realpath "${CARGO_TARGET_DIR:-target}")
first=$(realpath target/image)
second=$target/repro
. appliance-image/image.lock
. "$first/os-release"
rm -rf "$second"
trap 'rm -rf "$second"' EXIT
mkdir -p "$second/sources"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$second/sources"
CARGO_TARGET_DIR=$second/target SOURCE_DATE_EPOCH=$BUILD_EPOCH CLINCH_IMAGE_VERSION=$IMAGE_VERSION \
    CLINCH_KERNEL_DEB=${CLINCH_KERNEL_DEB:-$target/kernels/$kernel_package.deb} CLINCH_IMAGE_KEYS=$first/keys \
    "$second/sources/appliance-image/build.sh" "$second/image"
(cd "$second/image" && sha256sum --quiet -c "$first/SHA256SUMS") && echo "the same bytes twice: $(wc -l < "$first/SHA256SUMS") files"
