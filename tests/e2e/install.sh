#!/bin/sh
# What `make install` leaves: the program runs, the man page is there, and a program of somebody else's links with libpare
# alone, shared and static. usage: install.sh BUILD_DIR
set -eu
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/usr" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
for f in bin/pare lib/libpare.a lib/libpare.so include/pare.h lib/pkgconfig/pare.pc share/man/man1/pare.1; do
    [ -e "$work/usr/$f" ] || { echo "install: $f is missing"; exit 1; }
done
"$work/usr/bin/pare" --version | grep -q '^pare [0-9]'
export PKG_CONFIG_PATH="$work/usr/lib/pkgconfig"
# shellcheck disable=SC2046
cc -std=c17 -Wall -Wextra -Werror examples/generate.c $(pkg-config --cflags --libs pare) -o "$work/shared"
# shellcheck disable=SC2046
cc -std=c17 examples/generate.c $(pkg-config --cflags pare) "$work/usr/lib/libpare.a" \
    $(pkg-config --libs --static pare | sed 's/-lpare//') -o "$work/static"
a=$(LD_LIBRARY_PATH="$work/usr/lib" "$work/shared" models/storyteller.gguf "Once upon a time")
b=$("$work/static" models/storyteller.gguf "Once upon a time")
[ -n "$a" ] && [ "$a" = "$b" ] || { echo "install: the two programs differ: '$a' and '$b'"; exit 1; }
echo "$a" | grep -q 'tokens\]' || { echo "install: no usage in '$a'"; exit 1; }
# Nothing but the promised names is visible.
names=$(nm -D --defined-only "$work/usr/lib/libpare.so" | awk '{ print $3 }' | grep -v '^pare_' | grep -v '^PARE_' || true)
[ -z "$names" ] || { echo "install: libpare.so shows $names"; exit 1; }
echo "install: program, man page, libpare shared and static work"
