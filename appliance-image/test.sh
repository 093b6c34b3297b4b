#!/bin/sh
# Boots the image in QEMU, one machine at a time: appliance-image/test.sh [NAME OF A TEST]
#
# Emulated (TCG): /dev/kvm may be there and not work, and figures of an emulated machine are none.
set -eu
cd "$(dirname "$0")/.."
CLINCH_IMAGE=${CLINCH_IMAGE:-$(realpath "${CARGO_TARGET_DIR:-target}/image")}
CLINCH_APPLIANCE=$(realpath "${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-gnu/appliance/clinch-appliance")
export CLINCH_IMAGE CLINCH_APPLIANCE
rm -f "$CLINCH_IMAGE/boot-times.txt"
cargo test --locked -p clinch-tests --test appliance -- --test-threads 1 "$@"
[ ! -e "$CLINCH_IMAGE/boot-times.txt" ] || cat "$CLINCH_IMAGE/boot-times.txt"
