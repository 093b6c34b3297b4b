#!/bin/sh
# Builds the steering programs with the pinned toolchain, into ebpf/object/steering.o.
#
#   ebpf/build.sh            rebuild the object that is kept in the repository
#   ebpf/build.sh --check    rebuild elsewhere and compare: exit code 1 if the object differs
#   ebpf/build.sh --tools    only install what is missing
#
# Needs Rust 1.95 (a stable compiler, told to take the one unstable option that builds core), its
# rust-src component, and bpf-linker, which is installed once with cargo, into CLINCH_EBPF_TOOLS
# (default: ~/.cache/clinch-ebpf), and takes minutes. Where rustup cannot bring rust-src, a Debian
# rust-src package of the same version is taken.
set -eu

RUST=1.95
LINKER=0.10.4
TARGET=bpfel-unknown-none
here=$(cd "$(dirname "$0")" && pwd)
tools=${CLINCH_EBPF_TOOLS:-$HOME/.cache/clinch-ebpf}

has_source() { [ -e "$(rustc --print sysroot)/lib/rustlib/src/rust/library/core/Cargo.toml" ]; }

install_tools() {
    case $(rustc --version) in
        "rustc $RUST."*) ;;
        *) echo "ebpf/build.sh: the object is pinned to Rust $RUST, and this is $(rustc --version); rustup toolchain install $RUST, then RUSTUP_TOOLCHAIN=$RUST" >&2; exit 1 ;;
    esac
    if ! has_source; then
        rustup component add rust-src || true
        if ! has_source && apt-get install -y -qq --no-install-recommends "rust-src=$RUST*"; then
            mkdir -p "$(rustc --print sysroot)/lib/rustlib/src"
            ln -sfn "/usr/src/rustc-$(rustc --version | cut -d' ' -f2)" "$(rustc --print sysroot)/lib/rustlib/src/rust"
        fi
        has_source || { echo "ebpf/build.sh: rust-src $RUST comes neither from rustup nor from Debian" >&2; exit 1; }
    fi
    case $("$tools/bin/bpf-linker" --version 2>/dev/null || true) in
        "bpf-linker $LINKER") ;;
        *) cargo install --locked --version "$LINKER" --root "$tools" bpf-linker ;;
    esac
}

build() {
    # The paths of this machine must not end up in the object, else no other machine gets the same.
    remap="--remap-path-prefix=$here=/clinch/ebpf --remap-path-prefix=$(rustc --print sysroot)=/rust --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    (
        cd "$here/programs"
        PATH="$tools/bin:$PATH" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$1" \
            RUSTFLAGS="-C debuginfo=2 -C linker=bpf-linker -C link-arg=--btf $remap" \
            cargo build --quiet --release --locked --target $TARGET -Z build-std=core
    )
}

case ${1:-} in
    --tools) install_tools ;;
    --check)
        install_tools
        target=${CARGO_TARGET_DIR:-$here/../target}/ebpf
        build "$target"
        if cmp "$target/$TARGET/release/steering" "$here/object/steering.o"; then
            echo "the object is what the source makes"
        else
            echo "ebpf/object/steering.o is not what ebpf/ makes: run 'make ebpf' and commit the object" >&2
            exit 1
        fi ;;
    '')
        install_tools
        target=${CARGO_TARGET_DIR:-$here/../target}/ebpf
        build "$target"
        mkdir -p "$here/object"
        cp "$target/$TARGET/release/steering" "$here/object/steering.o"
        ls -l "$here/object/steering.o" ;;
    *) echo "usage: ebpf/build.sh [--check|--tools]" >&2; exit 2 ;;
esac
