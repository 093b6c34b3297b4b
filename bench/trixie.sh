#!/bin/sh
# Debian 13 (trixie) in a directory, for its newer nginx, HAProxy, Hitch and Caddy. Prints the directory.
#
#   bench/trixie.sh          makes it if it is not there: some minutes, 600 MB, as root
#
# Nothing runs from it by itself: clinch-bench starts its programs with its own loader and libraries,
# without entering it (start/PROGRAM). Remove it with rm -rf.
set -eu

root=${CLINCH_TRIXIE:-/var/cache/clinch-bench/trixie}
mirror=${CLINCH_DEBIAN_MIRROR:-http://deb.debian.org/debian}
packages=nginx-light,libnginx-mod-stream,haproxy,hitch,caddy

if [ ! -e "$root/.complete" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "bench/trixie.sh: making $root needs root" >&2
        exit 1
    fi
    "$(dirname "$0")/../tests/bootstrap.sh" newest >&2
    rm -rf "$root"
    mkdir -p "$(dirname "$root")"
    echo "making Debian 13 in $root" >&2
    # --variant=minbase: the peers and what they need. Unpacked only: no package script is run, so none
    # can start a service.
    debootstrap --variant=minbase --foreign --include="$packages" trixie "$root" "$mirror" >&2
    for package in "$root"/var/cache/apt/archives/*.deb; do
        dpkg-deb --extract "$package" "$root"
    done
    rm -rf "$root"/var/cache/apt/archives
    touch "$root/.complete"
fi

# HAProxy's master executes itself again at a reload, by the name that it was given: so that is a script.
mkdir -p "$root/start"
libraries=$root/usr/lib/x86_64-linux-gnu
for program in sbin/nginx sbin/haproxy sbin/hitch bin/caddy; do
    start=$root/start/${program#*/}
    cat > "$start" <<S
#!/bin/sh
exec $libraries/ld-linux-x86-64.so.2 --argv0 "\$0" --library-path $libraries $root/usr/$program "\$@"
S
    chmod 755 "$start"
done
echo "$root"
