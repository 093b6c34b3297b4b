#!/bin/sh
# Holds `clinch ocsp verify` against the responses that OpenSSL keeps for its own verifier: real ones
# of five CAs, and each spoiled in one way. They come with Debian's source package of openssl, which
# is downloaded; nothing of it is kept in this repository.
#
#   tests/corpora.sh CLINCH [DIRECTORY]
#
# The verdicts expected are those of OpenSSL's recipe 80-test_ocsp. The instant is one at which the
# response was valid, since clinch judges its time too, and SHA-1 is allowed, since they are of 2012.
set -eu
clinch=$(realpath "$1")
directory=${2:-$(dirname "$0")/../target/corpora}
mkdir -p "$directory/lists/partial"
cd "$directory"

if [ ! -d openssl ]; then
    # The archive that this machine installs from has the sources too.
    apt-get indextargets --format 'deb-src $(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
        grep ' bookworm main$' | sort -u > sources.list
    set -- -o "Dir::Etc::SourceList=$PWD/sources.list" -o Dir::Etc::SourceParts=- \
        -o "Dir::State::Lists=$PWD/lists" -o APT::Sandbox::User=root
    apt-get "$@" update -qq
    apt-get "$@" source --download-only -qq openssl
    mkdir openssl
    tar xzf openssl_*.orig.tar.gz -C openssl --strip-components=1 --wildcards '*/test/ocsp-tests/*'
fi
corpus=$PWD/openssl/test/ocsp-tests
agreed=0
all=0

# judge RESPONSE LEAF ISSUER TIME good|bad
judge() {
    all=$((all + 1))
    openssl base64 -d -in "$corpus/$1" -out response.der
    code=0
    "$clinch" ocsp verify --cert "$corpus/$2" --issuer "$corpus/$3" --response response.der \
        --at "$4" --allow-sha1 > verdict 2>&1 || code=$?
    case $5$code in
        good0 | bad[3-8]) agreed=$((agreed + 1)) ;;
        *) echo "$1 with $3: $5 expected, exit code $code: $(cat verdict)" ;;
    esac
}

# responses NAME LEAF ISSUER TIME: a response, and all that were made from it or its issuer.
responses() {
    judge "$1.ors" "$2" "$3" "$4" good
    for spoilt in ISOP WRID WINH WIKH WKDOSC ISDOSC; do
        # Those about a delegate's certificate exist where there is one.
        [ ! -e "$corpus/${spoilt}_$1.ors" ] || judge "${spoilt}_$1.ors" "$2" "$3" "$4" bad
    done
    for issuer in WSNIC WKIC; do
        judge "$1.ors" "$2" "${issuer}_$3" "$4" bad
    done
    # Who signed the issuer is for whoever trusts it to ask.
    judge "$1.ors" "$2" "ISIC_$3" "$4" good
}

responses ND1 ND1_Cert_EE.pem ND1_Issuer_ICA.pem 2012-10-15T07:00:00Z
responses ND2 ND2_Cert_ICA.pem ND2_Issuer_Root.pem 2012-10-14T20:00:00Z
responses ND3 ND3_Cert_EE.pem ND3_Issuer_Root.pem 2012-10-15T09:00:00Z
responses D1 D1_Cert_EE.pem D1_Issuer_ICA.pem 2012-10-30T07:00:00Z
responses D2 D2_Cert_ICA.pem D2_Issuer_Root.pem 2012-12-19T00:00:00Z
responses D3 D3_Cert_EE.pem D3_Issuer_Root.pem 2012-10-25T09:00:00Z

echo "OpenSSL's OCSP corpus: $agreed of $all verdicts agree"
[ "$agreed" = "$all" ] && [ "$all" -gt 50 ]
