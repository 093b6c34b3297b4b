#!/bin/sh
# Builds the steering programs with the pinned toolchain, into ebpf/object/steering.o.
#
#   ebpf/build.sh            rebuild the object that is kept in the repository, and note what made it
#   ebpf/build.sh --check    rebuild elsewhere and compare: exit code 1 if the object differs
#   ebpf/build.sh --compare  the same where the tools are there already; else compare the sources and
#                            the object with what was noted when it was built. Installs nothing
#   ebpf/build.sh --tools    only install what is missing
#
# The object is the same from any checkout and any toolchain folder. Paths get into symbol names, debug
# information and even the order of types, so everything is seen at one place, $stage: the sources are
# copied there; the toolchain and cargo's packages are mounted there, for this build alone (unshare).
#
# Needs Rust 1.95 (a stable compiler, told to take the one unstable option that builds core), its
# rust-src component, and bpf-linker, which is installed once with cargo, into CLINCH_EBPF_TOOLS
# (default: ~/.cache/clinch-ebpf), and takes minutes. Where rustup cannot bring rust-src, a Debian
# rust-src package of the same version is taken.
set -eu

RUST=1.95
LINKER=0.10.4
TARGET=bpfel-unknown-none
stage=/tmp/clinch-ebpf
repository=$(cd "$(dirname "$0")/.." && pwd)
kept=$repository/ebpf/object/steering.o
noted=$repository/ebpf/object/steering.made
tools=${CLINCH_EBPF_TOOLS:-$HOME/.cache/clinch-ebpf}

sysroot() { (cd "$repository" && rustc --print sysroot); }
has_source() { [ -e "$(sysroot)/lib/rustlib/src/rust/library/core/Cargo.toml" ]; }
has_linker() { [ "$("$tools/bin/bpf-linker" --version 2>/dev/null)" = "bpf-linker $LINKER" ]; }
has_rust() { case $(cd "$repository" && rustc --version) in "rustc $RUST."*) ;; *) false ;; esac }

install_tools() {
    if ! has_rust; then
        echo "ebpf/build.sh: the object is pinned to Rust $RUST, and this is $(rustc --version); rustup toolchain install $RUST, then RUSTUP_TOOLCHAIN=$RUST" >&2
        exit 1
    fi
    if ! has_source; then
        rustup component add rust-src || true
        if ! has_source && apt-get install -y -qq --no-install-recommends "rust-src=$RUST*"; then
            mkdir -p "$(sysroot)/lib/rustlib/src"
            ln -sfn "/usr/src/rustc-$(rustc --version | cut -d' ' -f2)" "$(sysroot)/lib/rustlib/src/rust"
        fi
        has_source || { echo "ebpf/build.sh: rust-src $RUST comes neither from rustup nor from Debian" >&2; exit 1; }
    fi
    has_linker || cargo install --locked --version "$LINKER" --root "$tools" bpf-linker
}

# The inputs, in an order that is the same everywhere: what is compiled, the lock, this script, and
# what the packages inherit.
sources() {
    (
        cd "$repository"
        find ebpf/hello/src ebpf/abi/src ebpf/programs -type f -not -path '*/target/*' | LC_ALL=C sort |
            xargs sha256sum ebpf/build.sh ebpf/hello/Cargo.toml ebpf/abi/Cargo.toml
        sed -n '/^\[workspace.package\]/,/^$/p' Cargo.toml
    ) | sha256sum | cut -d' ' -f1
}

digest() { sha256sum "$1" | cut -d' ' -f1; }

# Builds in the stage; the result is $stage/built.o.
build() {
    real=$(sysroot)
    # One at a time, as all checkouts share the place. mkdir fails where somebody else made it.
    exec 9>"$stage.lock"
    flock 9
    rm -rf "$stage"
    mkdir -m 700 "$stage" "$stage/ebpf"
    cp "$repository/Cargo.toml" "$stage/"
    (cd "$repository/ebpf" && cp -r hello abi programs "$stage/ebpf/")
    rm -rf "$stage/ebpf/programs/target"
    home=$(realpath "${CARGO_HOME:-$HOME/.cargo}")
    mkdir -p "$home/registry" "$stage/home/registry" "$stage/rust"
    [ ! -e "$home/config.toml" ] || cp "$home/config.toml" "$stage/home/"
    printf '#!/bin/sh\nexec "%s/bin/rustc" --sysroot %s "$@"\n' "$stage/rust" "$stage/rust" > "$stage/rustc"
    chmod 755 "$stage/rustc"
    user=
    [ "$(id -u)" = 0 ] || user=--map-root-user
    # shellcheck disable=SC2086 # one word or none
    REAL_RUST=$real REAL_HOME=$home TOOLS=$tools STAGE=$stage TARGET=$TARGET unshare --mount $user sh -eu <<'M'
mount --bind "$REAL_RUST" "$STAGE/rust"
mount --bind "$REAL_HOME/registry" "$STAGE/home/registry"
cd "$STAGE/ebpf/programs"
unset CARGO_BUILD_RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTC_WRAPPER RUSTC_WRAPPER
# bpf-linker finds LLVM in the folder of libraries beside one in PATH.
export PATH="$TOOLS/bin:$STAGE/rust/bin:$PATH" CARGO_HOME="$STAGE/home" RUSTC="$STAGE/rustc" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$STAGE/target"
cargo fetch --quiet --locked
# Of several prefixes that match, the last counts.
remap="--remap-path-prefix=$STAGE=/clinch --remap-path-prefix=$STAGE/rust=/rust"
for packages in "$STAGE"/home/registry/src/*; do
    remap="$remap --remap-path-prefix=$packages=/packages"
done
export RUSTFLAGS="-C debuginfo=2 -C linker=bpf-linker -C link-arg=--btf $remap"
cargo build --quiet --release --locked --target "$TARGET" -Z build-std=core
M
    cp "$stage/target/$TARGET/release/steering" "$stage/built.o"
}

compare_built() {
    build
    if cmp "$stage/built.o" "$kept"; then
        echo "ebpf/object/steering.o is what the source makes"
    else
        echo "ebpf/object/steering.o is not what ebpf/ makes: run 'make ebpf' and commit the object" >&2
        exit 1
    fi
}

compare_noted() {
    if [ "$(sed -n 's/^sources //p' "$noted")" = "$(sources)" ] && [ "$(sed -n 's/^object //p' "$noted")" = "$(digest "$kept")" ]; then
        echo "ebpf/object/steering.o and its sources are those noted when it was built; 'make ebpf-check' builds it again"
    else
        echo "ebpf/object/steering.o was built from other sources than these: run 'make ebpf' and commit ebpf/object" >&2
        exit 1
    fi
}

case ${1:-} in
    --tools) install_tools ;;
    --check)
        install_tools
        compare_built
        compare_noted ;;
    --compare)
        if has_rust && has_source && has_linker; then compare_built; fi
        compare_noted ;;
    '')
        install_tools
        build
        mkdir -p "$(dirname "$kept")"
        cp "$stage/built.o" "$kept"
        printf 'sources %s\nobject %s\ncompiler %s\nlinker %s\n' "$(sources)" "$(digest "$kept")" "$(rustc --version)" "$LINKER" > "$noted"
        cat "$noted" ;;
    *) echo "usage: ebpf/build.sh [--check|--compare|--tools]" >&2; exit 2 ;;
esac
