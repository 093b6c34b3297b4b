#!/bin/sh
# Every check of the repository, in the order in which a mistake is cheapest to learn of. Ends with
# a summary; the last line reads "N passed, N failed, N skipped".
#
# A test that needs what the machine lacks reports it through `clinch_tests::skip!`, which writes
# one line to $CLINCH_SKIPS; such tests are counted as skipped, not as passed.
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0
failures=
CLINCH_SKIPS=$work/skips
export CLINCH_SKIPS
: > "$CLINCH_SKIPS"

# check NAME COMMAND...: one command that passes or fails as a whole.
check() {
    name=$1
    shift
    echo "== $name: $*"
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        failures="$failures
  $name"
    fi
}

# tests NAME COMMAND...: a `cargo test`, whose tests are counted one by one.
tests() {
    name=$1
    shift
    echo "== $name: $*"
    { "$@" 2>&1 && echo 0 > "$work/status" || echo 1 > "$work/status"; } | tee "$work/log"
    ok=$(awk '/^test result:/ { n += $4 } END { print n + 0 }' "$work/log")
    bad=$(awk '/^test result:/ { n += $6 } END { print n + 0 }' "$work/log")
    ignored=$(awk '/^test .* \.\.\. ignored/' "$work/log")
    [ -z "$ignored" ] || echo "$ignored" | sed 's/^test //; s/ \.\.\. ignored/: ignored/' >> "$CLINCH_SKIPS"
    if [ "$(cat "$work/status")" != 0 ] && [ "$bad" = 0 ]; then
        bad=1
        failures="$failures
  $name did not build or did not end"
    fi
    passed=$((passed + ok))
    failed=$((failed + bad))
    failures="$failures
$(sed -n 's/^test \(.*\) \.\.\. FAILED$/  \1/p' "$work/log")"
}

check format cargo fmt --all --check
check steering-object ebpf/build.sh --compare
check lints cargo clippy --workspace --all-targets --locked --quiet -- -D warnings
# With the tests, so that dependencies are built once: tests ask for more of their features.
check build cargo build --workspace --bins --tests --locked --quiet
CLINCH_BIN=$(realpath "${CARGO_TARGET_DIR:-target}/debug/clinch")
export CLINCH_BIN
tests tests cargo test --workspace --locked --no-fail-fast
# Each benchmark of criterion once.
check parts cargo test --locked --quiet -p clinch-bench --bench parts
check measurements "${CARGO_TARGET_DIR:-target}/debug/clinch-bench" --quick --no-record all
check comparison "${CARGO_TARGET_DIR:-target}/debug/clinch-bench" --quick --no-record compare --base "$CLINCH_BIN"

skipped=$(grep -c . "$CLINCH_SKIPS" || true)
tests_skipped=$(grep -cv ': ignored$' "$CLINCH_SKIPS" || true)
passed=$((passed - tests_skipped))
echo
echo "== summary"
[ "$skipped" = 0 ] || { echo "skipped, with the reason:"; sort "$CLINCH_SKIPS" | sed 's/^/  /'; }
[ "$failed" = 0 ] || echo "failed:$failures" | grep -v '^ *$'
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
