#!/bin/sh
# Fuzzes each target in turn on one core: tests/fuzz.sh [SECONDS] [TARGET ...]
#
# Stable Rust does, told to take the flags that cargo-fuzz passes. No sanitizer, since the parsers
# have no unsafe code. What was found on the way stays in target/fuzz/corpus, a crash in
# target/fuzz/crashes: put it among the seeds (tests/fuzz/seeds) with the fix.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-1200}
[ $# = 0 ] || shift
[ $# != 0 ] || set -- $(ls tests/fuzz/seeds)

command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
export RUSTC_BOOTSTRAP=1
kept=${CARGO_TARGET_DIR:-target}/fuzz
failed=
for target in "$@"; do
    mkdir -p "$kept/corpus/$target" "$kept/crashes/$target"
    echo "== $target, $seconds s"
    cargo fuzz run --fuzz-dir tests/fuzz --target-dir "$kept" --sanitizer none "$target" \
        "$kept/corpus/$target" "tests/fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=4096 -print_final_stats=1 \
        -artifact_prefix="$kept/crashes/$target/" || failed="$failed $target"
done
[ -z "$failed" ] || { echo "crashed:$failed (see $kept/crashes)"; exit 1; }
