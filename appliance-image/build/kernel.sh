#!/bin/sh
# Fetches and unpacks the locked Debian kernel.
#
#   build/kernel.sh WORK        leaves WORK/kernel/{boot,lib}, a link to where it is kept
#   build/kernel.sh --relock    writes the newest 6.12 kernel of the archive into image.lock
#
# The package's SHA-256 must be the locked one; it is fetched once and kept under target/kernels. The
# archive keeps only the newest version: when the locked one has gone, give its file in
# $CLINCH_KERNEL_DEB, or lock the newer one. Exit code 3: it is not to be had.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
lock=$here/image.lock

relock() {
    package=$(apt-cache depends linux-image-6.12-amd64 | awk '/Depends:/ { print $2; exit }')
    [ -n "$package" ] || { echo "the archive has no linux-image-6.12-amd64; run apt-get update" >&2; exit 1; }
    version=$(apt-cache show "$package" | awk '/^Version:/ { print $2; exit }')
    sha=$(apt-cache show "$package=$version" | awk '/^SHA256:/ { print $2; exit }')
    sed -i -e "s|^kernel_package=.*|kernel_package=$package|" -e "s|^kernel_version=.*|kernel_version=$version|" \
        -e "s|^kernel_release=.*|kernel_release=${package#linux-image-}|" -e "s|^kernel_sha256=.*|kernel_sha256=$sha|" "$lock"
    echo "locked $package $version; build and run make image-test before it is committed"
}

if [ "${1-}" = --relock ]; then relock; exit; fi
work=$1
. "$lock"
kept=$(realpath -m "${CARGO_TARGET_DIR:-$here/../target}/kernels")
mkdir -p "$kept"
deb=${CLINCH_KERNEL_DEB:-$kept/$kernel_package.deb}
if [ ! -e "$deb" ]; then
    echo "fetching $kernel_package $kernel_version"
    fetch=$(mktemp -d "$kept/fetch.XXXXXX")
    trap 'rm -rf "$fetch"' EXIT
    if ! (cd "$fetch" && apt-get download -qq "$kernel_package=$kernel_version" 2>/dev/null); then
        echo "the archive does not have $kernel_package $kernel_version (any more). Give the file in CLINCH_KERNEL_DEB," >&2
        echo "or run apt-get update and appliance-image/build/kernel.sh --relock to take the version it has now." >&2
        exit 3
    fi
    mv "$fetch"/*.deb "$deb"
fi
found=$(sha256sum "$deb" | cut -d' ' -f1)
if [ "$found" != "$kernel_sha256" ]; then
    echo "$deb is not the locked kernel: SHA-256 $found, locked $kernel_sha256" >&2
    exit 1
fi
unpacked=$kept/$kernel_sha256
if [ ! -e "$unpacked/whole" ]; then
    rm -rf "$unpacked"
    dpkg-deb -x "$deb" "$unpacked"
    # The package has no modules.dep.
    depmod -b "$unpacked" "$kernel_release"
    touch "$unpacked/whole"
fi
rm -rf "$work/kernel"
ln -s "$unpacked" "$work/kernel"
