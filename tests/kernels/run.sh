#!/bin/sh
# Runs tests on other kernels than this machine's, in QEMU, one after the other:
#
#   tests/kernels/run.sh WHAT CLINCH TEST [SERIES]...
#
# CLINCH is the program, TEST a built file of tests, WHAT names the script beside this one that runs it
# inside (steering, ktls, ktls-cost, connections). The kernels are Debian's newest of these series (6.1, 6.12, and testing for what
# testing has), fetched from the archive without being installed, and kept under target/kernels. Each boots
# with an initial file system that has the two programs and what the tests call, runs that script, and
# ends. Emulated (TCG), so its times mean nothing; for ktls-cost each instruction takes one nanosecond. Writes what it saw to target/kernels/WHAT.txt.
set -eu
inside=$(realpath "$(dirname "$0")/$1.sh")
cd "$(dirname "$0")/../.."
what=$1
clinch=$(realpath "$2")
test=$(realpath "$3")
shift 3
[ $# != 0 ] || set -- 6.1 6.12
cache=$(realpath -m "${CARGO_TARGET_DIR:-target}/kernels")
PROGRAMS='sh sed taskset sleep ip ss cat sysctl iptables ip6tables modprobe mount setpriv prlimit openssl find mv uname strace'

# archive PROGRAM SERIES ARGUMENT...: apt with the machine's own sources, or with testing's.
archive() {
    program=$1
    series=$2
    shift 2
    [ "$series" = testing ] || { "$program" "$@"; return; }
    lists=$cache/testing
    if [ ! -e "$lists/sources.list" ]; then
        mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
        keys=/usr/share/keyrings/debian-archive-keyring.gpg
        echo "deb [signed-by=$keys] ${CLINCH_DEBIAN_MIRROR:-http://deb.debian.org/debian} testing main" > "$lists/sources.list"
        (archive apt-get testing update -qq >&2)
    fi
    "$program" -o "Dir::Etc::sourcelist=$lists/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o "Dir::State::lists=$lists/lists" -o "Dir::Cache=$lists/cache" "$@"
}

# package SERIES: the newest package of a series in the archive.
package() {
    case $1 in
        6.1 | testing) meta=linux-image-amd64 ;;
        *) meta=linux-image-$1-amd64 ;;
    esac
    archive apt-cache "$1" depends "$meta" | awk '/Depends: linux-image-/ { print $2; exit }'
}

# fetch PACKAGE SERIES: leaves kernel and modules in $cache/PACKAGE/{boot,lib}. Newer packages are several.
fetch() {
    [ ! -e "$cache/$1/complete" ] || return 0
    echo "fetching $1"
    rm -rf "$cache/fetch" "${cache:?}/$1"
    mkdir -p "$cache/fetch"
    parts=$(archive apt-cache "$2" depends "$1" | awk '/Depends: linux-(binary|modules)-/ { print $2 }')
    # shellcheck disable=SC2086 # one word per package
    (cd "$cache/fetch" && archive apt-get "$2" download -qq "$1" $parts)
    for file in "$cache"/fetch/*.deb; do dpkg-deb -x "$file" "$cache/$1"; done
    # Where everything is below /usr.
    [ -e "$cache/$1/lib" ] || ln -s usr/lib "$cache/$1/lib"
    mkdir -p "$cache/$1/boot"
    for kernel in "$cache/$1"/lib/modules/*/vmlinuz; do
        [ ! -e "$kernel" ] || ln -s "$kernel" "$cache/$1/boot/vmlinuz-$(basename "$(dirname "$kernel")")"
    done
    rm -rf "$cache/fetch"
    touch "$cache/$1/complete"
}

# put FILE ROOT: a file at its own path, and the libraries that it is linked with.
put() {
    [ -e "$2$1" ] || { mkdir -p "$2$(dirname "$1")" && cp -L "$1" "$2$1"; }
    for library in $(ldd "$1" 2>/dev/null | grep -o '/[^ ]*'); do
        [ -e "$2$library" ] || { mkdir -p "$2$(dirname "$library")" && cp -L "$library" "$2$library"; }
    done
}

# initrd RELEASE KERNEL-FOLDER OUT
initrd() {
    root=$cache/root
    rm -rf "$root"
    # As Debian has it, so that a program is found by either of its paths.
    for folder in bin sbin lib lib64; do
        mkdir -p "$root/usr/$folder"
        ln -s "usr/$folder" "$root/$folder"
    done
    mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/run/netns" "$root/etc" "$root/root"
    for program in $PROGRAMS; do put "$(command -v "$program")" "$root"; done
    put "$clinch" "$root"
    put "$test" "$root"
    strip "$root$clinch" "$root$test"
    for extension in /usr/lib/x86_64-linux-gnu/xtables/libxt_*.so; do put "$extension" "$root"; done
    modules=lib/modules/$1
    mkdir -p "$root/$modules/kernel/drivers/net"
    for part in net lib crypto arch; do cp -r "$2/$modules/kernel/$part" "$root/$modules/kernel/"; done
    cp "$2/$modules"/kernel/drivers/net/veth.ko* "$root/$modules/kernel/drivers/net/"
    for list in "$2/$modules"/modules.builtin* "$2/$modules/modules.order"; do
        [ ! -e "$list" ] || cp "$list" "$root/$modules/"
    done
    depmod -b "$root" "$1" 2>/dev/null
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' > "$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' > "$root/etc/group"
    echo '127.0.0.1 localhost' > "$root/etc/hosts"
    cat > "$root/init" <<I
#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /tmp; mount -t tmpfs run /run
modprobe veth
ip link set lo up
cat /proc/version
CLINCH_BIN=$clinch TEST=$test sh /inside.sh 2>&1
echo "tests ended with \$?"
echo o > /proc/sysrq-trigger
sleep 60
I
    chmod 755 "$root/init"
    cp "$inside" "$root/inside.sh"
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) > "$3"
}

case $what in
    # Several processors would have one clock between them.
    *-cost) cpus='-accel tcg,thread=single -smp 1 -icount shift=0,sleep=off' ;;
    *) cpus='-accel tcg,thread=multi -smp 2' ;;
esac

memory=1536
limit=1500
[ "$what" != connections ] || { memory=6144; limit=5400; }

mkdir -p "$cache"
: > "$cache/$what.txt"
failed=0
for series in "$@"; do
    package=$(package "$series")
    [ -n "$package" ] || { echo "the archive has no kernel $series; run apt-get update" >&2; exit 1; }
    fetch "$package" "$series"
    release=${package#linux-image-}
    release=${release%-unsigned}
    initrd "$release" "$cache/$package" "$cache/initrd"
    echo "== $release"
    # shellcheck disable=SC2086 # one word per option
    # QEMU of Debian 12 sometimes runs an instruction that the kernel is just exchanging, which is the end of
    # it before there is a first process.
    for _ in 1 2 3; do
        timeout $limit qemu-system-x86_64 $cpus -cpu max -m $memory -nodefaults -no-reboot -display none \
            -kernel "$cache/$package/boot/vmlinuz-$release" -initrd "$cache/initrd" \
            -append 'console=ttyS0 quiet panic=-1' -serial "file:$cache/$what-$series.log" < /dev/null || true
        ! grep -aq '^Linux version' "$cache/$what-$series.log" || break
    done
    {
        echo "== $release"
        grep -aE '^(Linux version|== |test .* \.\.\.|test result:|cost |tests ended)' "$cache/$what-$series.log" | tr -d '\r'
    } | tee -a "$cache/$what.txt"
    grep -aq '^tests ended with 0' "$cache/$what-$series.log" || { failed=1; echo "kernel $release: see $cache/$what-$series.log" >&2; }
done
exit $failed
