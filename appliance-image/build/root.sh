#!/bin/sh
# Assembles the root file system of the image as a folder.
#
#   build/root.sh WORK ROOT CLINCH INIT
#
# In it: the init (static in an image that is shipped), clinch and nft with the libraries they name,
# the modules of modules.list with what those depend on (compressed as Debian has them: the root lies in
# memory, and the kernel unpacks what it loads), CA certificates, two users. No shell, no package manager, nothing to log in with.
# $CLINCH_IMAGE_MODULES is another list.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
work=$1 root=$2 clinch=$3 init=$4
. "$here/image.lock"
modules=${CLINCH_IMAGE_MODULES:-$here/modules.list}

rm -rf "$root"
for dir in bin dev etc/ssl/certs proc run sys tmp state volume boot efi lib64 usr var/cache/clinch; do mkdir -p "$root/$dir"; done
install -m 755 "$init" "$root/init"
install -m 755 "$clinch" "$root/bin/clinch"
strip "$root/init" "$root/bin/clinch"
install -m 755 /usr/sbin/nft "$root/bin/nft"

# Libraries where the loader of this glibc looks for them.
{ ldd "$clinch" /usr/sbin/nft "$init" 2>/dev/null || true; } | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\/lib64/ { print $1 }' | sort -u | while read -r library; do
    case $library in
        /lib64/*) install -D -m 755 "$(readlink -f "$library")" "$root$library" ;;
        *) install -D -m 644 "$(readlink -f "$library")" "$root/lib/x86_64-linux-gnu/$(basename "$library")" ;;
    esac
done
ln -s ../lib "$root/usr/lib"

install -m 644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
cat > "$root/etc/passwd" <<'P'
root:x:0:0:root:/:/nonexistent
clinch:x:900:900:Clinch TLS terminator:/nonexistent:/nonexistent
clinch-egress:x:901:901:Clinch egress process:/nonexistent:/nonexistent
P
printf 'root:x:0:\nclinch:x:900:\nclinch-egress:x:901:\n' > "$root/etc/group"
printf '127.0.0.1 localhost\n::1 localhost\n' > "$root/etc/hosts"
printf 'hosts: files dns\n' > "$root/etc/nsswitch.conf"
ln -s /run/resolv.conf "$root/etc/resolv.conf"
cp "$work/os-release" "$root/etc/os-release"
[ ! -e "$work/keys/update.pub" ] || install -m 644 "$work/keys/update.pub" "$root/etc/update.pub"

# Modules: names and folders to files, then what they need.
all=$work/kernel/lib/modules/$kernel_release
mine=$root/lib/modules/$kernel_release
mkdir -p "$mine"
sed -e 's/#.*//' -e 's/^now  *//' "$modules" | awk 'NF { print $1 }' | awk -v dep="$all/modules.dep" '
    function plain(path) { sub(/.*\//, "", path); sub(/\.ko.*/, "", path); gsub(/-/, "_", path); return path }
    BEGIN {
        while ((getline line < dep) > 0) {
            split(line, halves, ":"); path[plain(halves[1])] = halves[1]; needs[halves[1]] = halves[2]
        }
    }
    function take(file,   list, n, i) {
        if (file in taken) return
        taken[file] = 1; print file
        n = split(needs[file], list, " ")
        for (i = 1; i <= n; i++) take(list[i])
    }
    /\/$/ { for (file in needs) if (index(file, "kernel/" $1) == 1) take(file); next }
    { name = $1; gsub(/-/, "_", name); if (name in path) take(path[name]); else print "no " $1 }
' | sort -u | while read -r file; do
    # A name that the kernel does not have (any more) must not end in an image without it.
    case $file in "no "*) echo "modules.list: $kernel_release has no module ${file#no }" >&2; exit 1 ;; esac
    mkdir -p "$mine/$(dirname "$file")"
    cp "$all/$file" "$mine/$file"
done
cp "$all/modules.builtin" "$all/modules.order" "$mine/"
[ ! -e "$all/modules.builtin.modinfo" ] || cp "$all/modules.builtin.modinfo" "$mine/"
depmod -b "$root" "$kernel_release"
(cd "$mine" && rm -f modules.*.bin modules.symbols modules.devname modules.builtin* modules.order)
sed -n 's/#.*//; s/^now  *\([^ ]*\).*/\1/p' "$modules" > "$root/etc/modules-now"
