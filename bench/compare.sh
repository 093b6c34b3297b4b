#!/bin/sh
# Is the working tree dearer than another revision? Builds clinch of both and lets them take turns.
#
#   bench/compare.sh REV [clinch-bench options, e.g. --rounds 3]
#
# Exit code 0: no; 3: dearer by more than 5 % outside the noise; 1: it could not be found out.
# Builds of a base are kept under target/compare, one program for each commit. Bases have a target folder of
# their own: for cargo the same package of two trees is one, and it takes for fresh what was built later than
# the sources were changed, though from the other tree.
set -eu
cd "$(dirname "$0")/.."

base=${1:?"which revision is the base? make bench-compare BASE=REV"}
shift
commit=$(git rev-parse --verify --quiet "$base^{commit}") || {
    echo "bench/compare.sh: $base is no revision of this repository" >&2
    exit 1
}
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/compare"
target=$(realpath "$target")
kept=$target/compare
program=$kept/clinch-$commit

if [ ! -x "$program" ]; then
    echo "building clinch of $base ($commit)"
    tree=$kept/tree-$commit
    trap 'git worktree remove --force "$tree" 2>/dev/null || true' EXIT INT TERM
    git worktree add --quiet --detach "$tree" "$commit"
    # With clinch-bench, as below: cargo chooses features by all that it builds, and both must have the same.
    (cd "$tree" && CARGO_TARGET_DIR="$kept/target" cargo build --release --locked -p clinch -p clinch-bench)
    cp "$kept/target/release/clinch" "$program.new" && mv "$program.new" "$program"
fi
echo "building clinch of the working tree"
cargo build --release --locked -p clinch -p clinch-bench
# Their debug information names their folders, so that even the same sources differ.
if cmp -s "$target/release/clinch" "$program"; then
    echo "bench/compare.sh: both builds are one program: nothing was compared" >&2
    exit 1
fi
"$target/release/clinch-bench" --no-record "$@" compare --base "$program"
