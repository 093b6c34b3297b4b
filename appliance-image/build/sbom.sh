#!/bin/sh
# Lists what is in the image as SPDX 2.3: build/sbom.sh OUT leaves OUT/sbom.spdx.json.
#
# Debian packages (the kernel as locked, the owners of the libraries as installed), the crates that
# Cargo.lock pins for clinch and the init, and the SHA-256 of every file of the root.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
out=$1
. "$here/image.lock"
. "$out/os-release"
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)

package() { # ID NAME VERSION PURL
    printf ',\n  {"SPDXID":"SPDXRef-%s","name":"%s","versionInfo":"%s","downloadLocation":"NOASSERTION","filesAnalyzed":false,"externalRefs":[{"referenceCategory":"PACKAGE-MANAGER","referenceType":"purl","referenceLocator":"%s"}]}' \
        "$(printf %s "$1" | tr -c 'A-Za-z0-9.-' -)" "$2" "$3" "$4"
}

{
    printf '{"spdxVersion":"SPDX-2.3","dataLicense":"CC0-1.0","SPDXID":"SPDXRef-DOCUMENT","name":"clinch-appliance-%s",' "$IMAGE_VERSION"
    printf '"documentNamespace":"urn:clinch:appliance:%s","creationInfo":{"created":"%s","creators":["Tool: appliance-image/build/sbom.sh"]},\n' "$IMAGE_VERSION" "$created"
    printf '"packages":[\n  {"SPDXID":"SPDXRef-image","name":"clinch-appliance","versionInfo":"%s","downloadLocation":"NOASSERTION","filesAnalyzed":false}' "$IMAGE_VERSION"
    package "deb-$kernel_package" "$kernel_package" "$kernel_version" "pkg:deb/debian/$kernel_package@$kernel_version?arch=amd64"
    { ldd /usr/sbin/nft | awk '$2 == "=>" { print $3 }'; echo /usr/sbin/nft; echo /usr/lib/systemd/boot/efi/linuxx64.efi.stub; } | while read -r file; do
        dpkg -S "$(realpath "$file")" 2>/dev/null || dpkg -S "$file" 2>/dev/null || true
    done | sed 's/: .*//' | sort -u | while read -r owner; do
        dpkg-query -W -f='${Package} ${Version}\n' "$owner"
    done | while read -r name version; do
        package "deb-$name" "$name" "$version" "pkg:deb/debian/$name@$version?arch=amd64"
    done
    cargo tree --locked --manifest-path "$here/../Cargo.toml" -p clinch -p clinch-init -e normal --prefix none --target x86_64-unknown-linux-gnu |
        awk 'NF >= 2 { print $1, substr($2, 2) }' | sort -u | while read -r name version; do
        package "crate-$name-$version" "$name" "$version" "pkg:cargo/$name@$version"
    done
    printf '],\n"files":['
    (cd "$out/root" && find . -type f | sort) | {
        separator=
        while read -r file; do
            printf '%s\n  {"SPDXID":"SPDXRef-file-%s","fileName":"%s","checksums":[{"algorithm":"SHA256","checksumValue":"%s"}]}' "$separator" \
                "$(printf %s "$file" | tr -c 'A-Za-z0-9.-' -)" "$file" "$(sha256sum "$out/root/$file" | cut -d' ' -f1)"
            separator=,
        done
    }
    printf '],\n"relationships":[{"spdxElementId":"SPDXRef-DOCUMENT","relationshipType":"DESCRIBES","relatedSpdxElement":"SPDXRef-image"}]}\n'
} > "$out/sbom.spdx.json"
