#!/bin/sh
# Makes the update of a build: build/update.sh OUT [UKI] [VERSION] [UPDATE]
#
# An update is a line of text, a signature over that line, and the UKI whose SHA-256 the line names:
#   clinch-update 1 VERSION SIZE SHA256\n   Ed25519 signature as hex\n   bytes
set -eu
out=$1
uki=${2:-$out/clinch.efi}
version=${3:-$(sed -n 's/^IMAGE_VERSION=//p' "$out/os-release")}
update=${4:-$out/clinch.update}
head=$update.head
printf 'clinch-update 1 %s %s %s\n' "$version" "$(stat -c %s "$uki")" "$(sha256sum "$uki" | cut -d' ' -f1)" > "$head"
openssl pkeyutl -sign -inkey "$out/keys/update.key" -rawin -in "$head" -out "$head.sig"
{ cat "$head"; od -An -v -tx1 "$head.sig" | tr -d ' \n'; echo; cat "$uki"; } > "$update"
rm -f "$head" "$head.sig"
