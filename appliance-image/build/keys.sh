#!/bin/sh
# Makes the keys of a build, where they are not given: build/keys.sh FOLDER
#
#   db.key, db.crt      sign what the firmware boots (Secure Boot); PK and KEK likewise
#   *.auth              what systemd-boot enrols on a machine in setup mode
#   update.key, .pub    sign updates (Ed25519); the image carries the public half
#
# Keys are never committed. Keep the folder: a machine takes updates only from the key it was given.
set -eu
dir=$1
mkdir -p "$dir"
chmod 700 "$dir"
cd "$dir"
for name in PK KEK db; do
    [ -e $name.key ] || openssl req -new -x509 -newkey rsa:2048 -nodes -sha256 -days 7300 -subj "/CN=Clinch appliance $name/" \
        -keyout $name.key -out $name.crt 2>/dev/null
done
[ -e update.key ] || openssl genpkey -algorithm ed25519 -out update.key
# The raw 32 bytes of the public key, as hex.
openssl pkey -in update.key -pubout -outform DER | tail -c 32 | od -An -v -tx1 | tr -d ' \n' > update.pub
guid=8b1f1c3e-6f0a-4c8e-9a55-3d2c6f5a7e10
[ -e db.auth ] || for name in PK KEK db; do
    case $name in PK) by=PK ;; KEK) by=PK ;; db) by=KEK ;; esac
    cert-to-efi-sig-list -g $guid $name.crt $name.esl
    sign-efi-sig-list -t '2024-01-01 00:00:00' -g $guid -k $by.key -c $by.crt $name $name.esl $name.auth >/dev/null
done
