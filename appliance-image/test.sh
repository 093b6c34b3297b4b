#!/bin/sh
# Boots the image in QEMU, one machine at a time: appliance-image/test.sh [PART OF A TEST'S NAME]
#
# Emulated (TCG): /dev/kvm may be there and not work, and figures of an emulated machine are none. The
# tests are in tests/tests/appliance; to add one, add a function there.
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
CLINCH_IMAGE=${CLINCH_IMAGE:-$(realpath "$target/image")}
. appliance-image/build/programs.sh
built=$(realpath "$target/$triple/appliance")
CLINCH_APPLIANCE=$built/clinch-appliance
CLINCH_HUNG=$built/examples/hung
export CLINCH_IMAGE CLINCH_APPLIANCE CLINCH_HUNG

# What the tests put into a machine besides the image.
program appliance "$static" -p clinch-init --example hung

rm -f "$CLINCH_IMAGE/boot-times.txt" "$CLINCH_IMAGE/costs.txt"
cargo test --workspace --locked --test appliance -- --test-threads 1 --nocapture "$@"
for figures in boot-times.txt costs.txt; do
    [ ! -e "$CLINCH_IMAGE/$figures" ] || cat "$CLINCH_IMAGE/$figures"
done
