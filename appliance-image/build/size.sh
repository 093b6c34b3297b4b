#!/bin/sh
# Fails where a system is larger than it may be: build/size.sh FILE
set -eu
largest=24000000
size=$(stat -c %s "$1")
if [ "$size" -gt $largest ]; then
    echo "$1 has $size bytes, more than the $largest that it may have" >&2
    exit 1
fi
