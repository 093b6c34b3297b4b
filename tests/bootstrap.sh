#!/bin/sh
# Installs what a purpose needs and the machine lacks, and says what. Debian 12, as root.
#
#   tests/bootstrap.sh build|demo|test|matrix|fuzz|bench|newest|ebpf-kernels|image|image-quick|image-test ...
#
# Looks first, so that it is quick and offline when nothing is missing. Package services (nginx,
# HAProxy) are neither started nor enabled: the tests start such programs themselves.
set -eu

wanted() {
    case $1 in
        build) echo gcc libc6-dev ca-certificates ;;
        demo) echo openssl curl ca-certificates ;;
        test) echo openssl curl gnutls-bin nginx-light libnginx-mod-stream haproxy tinyproxy-bin iproute2 iptables ipset nftables prometheus faketime systemd ;;
        matrix) echo nginx-light haproxy hitch apache2-bin iproute2 ;;
        fuzz) echo g++ ;;
        bench) echo nginx-light libnginx-mod-stream haproxy hitch h2o stunnel4 apache2-bin strace ;;
        newest) echo debootstrap ;;
        image) echo systemd-boot-efi mtools dosfstools e2fsprogs fdisk cpio zstd xz-utils kmod binutils sbsigntool efitools faketime syslinux syslinux-common nftables openssl ca-certificates ;;
        ebpf-kernels) echo qemu-system-x86 cpio kmod binutils strace ;;
        image-quick) echo qemu-system-x86 mtools dosfstools e2fsprogs cpio zstd xz-utils kmod binutils nftables openssl ca-certificates ;;
        image-test) echo qemu-system-x86 ipxe-qemu ovmf swtpm xorriso openssl ;;
        *) echo "tests/bootstrap.sh: unknown purpose '$1' (build, demo, test, matrix, fuzz, bench, newest, ebpf-kernels, image, image-quick or image-test)" >&2; exit 2 ;;
    esac
}

installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Keeps package scripts from starting services, for the duration of `$@`.
without_services() {
    policy=/usr/sbin/policy-rc.d
    if [ -e $policy ]; then "$@"; return; fi
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod 755 $policy
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM
    "$@"
    rm -f $policy
    trap - EXIT INT TERM
}

install_packages() {
    if [ "$(id -u)" != 0 ]; then
        echo "these packages are missing and installing them needs root: $*" >&2
        exit 1
    fi
    echo "installing from Debian: $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    without_services apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    for service in nginx haproxy hitch h2o stunnel4; do
        case " $* " in *" $service"*) systemctl disable $service >/dev/null 2>&1 || true ;; esac
    done
}

check_rust() {
    if ! command -v cargo >/dev/null; then
        echo "cargo is not in PATH: install Rust 1.95 or newer with rustup, or run '. ~/.cargo/env' first" >&2
        exit 1
    fi
}

check_rust_tools() {
    for tool in clippy:clippy fmt:rustfmt; do
        cargo "${tool%:*}" --version >/dev/null 2>&1 && continue
        echo "installing with rustup: ${tool#*:}"
        rustup component add "${tool#*:}"
    done
}

missing=
for purpose in "$@"; do
    for package in $(wanted "$purpose"); do
        installed "$package" || missing="$missing $package"
    done
done
# shellcheck disable=SC2086 # one word per package
[ -z "$missing" ] || install_packages $missing
check_rust
case " $* " in *" test "*) check_rust_tools ;; esac
