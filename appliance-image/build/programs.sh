# Sourced by build.sh and test.sh, at the top of the sources: how the appliance's programs are built.
#
#   program PROFILE FLAGS ARGUMENT...    cargo build with these flags of rustc besides
#
# The same sources and toolchain give the same bytes wherever they lie and whenever they are built: the
# folders of sources, build, registry and toolchain, which rustc writes into what it compiles, have other
# names there, and the time, which C may ask for (mimalloc does), is always the same. The target is named
# so that none of this rebuilds what is built without it.
triple=x86_64-unknown-linux-gnu
# Between two flags, so that a folder may have a space in its name.
unit=$(printf '\037')
static=-Ctarget-feature=+crt-static${unit}-Crelocation-model=static

program() {
    profile=$1
    flags=$2
    shift 2
    mkdir -p "${CARGO_TARGET_DIR:-target}"
    for folder in "$PWD=/clinch" "$(realpath "${CARGO_TARGET_DIR:-target}")=/build" \
        "$(realpath "${CARGO_HOME:-$HOME/.cargo}")=/cargo" "$(rustc --print sysroot)=/rust"; do
        flags=${flags:+$flags$unit}--remap-path-prefix=$folder
    done
    SOURCE_DATE_EPOCH=0 CARGO_ENCODED_RUSTFLAGS=$flags cargo build --profile "$profile" --locked --quiet --target "$triple" "$@"
}
