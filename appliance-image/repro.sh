#!/bin/sh
# Builds the image a second time from the same inputs, programs and all, in other folders, and compares.
#
# The same sources, lock files, toolchain, cargo folder and keys; nothing that the first build left is used.
# CLINCH_BIN and CLINCH_INIT_BIN, where given, are taken by both builds as they are.
set -eu
cd "$(dirname "$0")/.."
target=$(realpath "${CARGO_TARGET_DIR:-target}")
second=$target/repro
rm -rf "$second"
trap 'rm -rf "$second"' EXIT
first=$target/image
CARGO_TARGET_DIR=$second/target CLINCH_IMAGE_KEYS=$first/keys appliance-image/build.sh "$second/image"
(cd "$second/image" && sha256sum --quiet -c "$first/SHA256SUMS") && echo "the same bytes twice: $(wc -l < "$first/SHA256SUMS") files"
