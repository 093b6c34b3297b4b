#!/bin/sh
# Assembles the image a second time from the same inputs, in another folder, and compares.
#
# The binaries are taken from the first build: whether rustc gives the same bytes twice is not asked
# here (paths of the machine are in its debug information, which is stripped).
set -eu
cd "$(dirname "$0")/.."
second=$(mktemp -d)
trap 'rm -rf "$second"' EXIT
target=${CARGO_TARGET_DIR:-target}
first=$(realpath target/image)
CLINCH_BIN=$target/release/clinch CLINCH_INIT_BIN=$target/x86_64-unknown-linux-gnu/appliance/clinch-init \
    CLINCH_IMAGE_KEYS=$first/keys appliance-image/build.sh "$second"
(cd "$second" && sha256sum --quiet -c "$first/SHA256SUMS") && echo "the same bytes twice: $(wc -l < "$first/SHA256SUMS") files"
