#!/bin/sh
# What `make install` leaves: the program runs, the man page is there, and the examples build and run with what was
# installed alone, shared and static, found by pkg-config. usage: install.sh BUILD_DIR
set -eu
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
DESTDIR="$work" cmake --install "$build" --prefix /usr >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
for f in bin/pare lib/libpare.a lib/libpare.so include/pare.h lib/pkgconfig/pare.pc share/man/man1/pare.1; do
    [ -e "$work/usr/$f" ] || { echo "install: $f is missing"; exit 1; }
done
export PKG_CONFIG_PATH="$work/usr/lib/pkgconfig"
"$work/usr/bin/pare" --version | grep -q "^pare $(pkg-config --modversion pare)"

# Programs of somebody else's: they see the installed folder and nothing of the source tree but their own file.
export PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
for program in generate chat embed; do
    cp "examples/$program.c" "$work/$program.c"
    lines=$(wc -l <"$work/$program.c")
    [ "$lines" -lt 60 ] || { echo "install: examples/$program.c has $lines lines, not less than 60"; exit 1; }
    # shellcheck disable=SC2046
    (cd "$work" && cc -std=c17 -Wall -Wextra -Werror "$program.c" $(pkg-config --cflags --libs pare) \
        -o "$program.shared")
    # shellcheck disable=SC2046
    (cd "$work" && cc -std=c17 "$program.c" $(pkg-config --cflags pare) usr/lib/libpare.a \
        $(pkg-config --libs --static pare | sed 's/-lpare//') -o "$program.static")
done

# both PROGRAM ARGUMENTS: what the two print, in $said; they must agree.
both() {
    program=$1
    shift
    said=$(LD_LIBRARY_PATH="$work/usr/lib" "$work/$program.shared" "$@" <"$work/input")
    other=$("$work/$program.static" "$@" <"$work/input")
    if [ -z "$said" ] || [ "$said" != "$other" ]; then
        echo "install: the two builds of $program differ: '$said' and '$other'"
        exit 1
    fi
}
# says PATTERN: of the last program
says() {
    echo "$said" | grep -q -- "$1" || { echo "install: $program does not say '$1': '$said'"; exit 1; }
}

: >"$work/input"
both generate models/storyteller.gguf "Once upon a time"
says '\[5 + [0-9]* tokens\]'
if command -v g++ >/dev/null; then # the same program as C++
    # shellcheck disable=SC2046
    (cd "$work" && g++ -std=c++20 -Wall -Wextra -Wno-missing-field-initializers -Werror -x c++ generate.c -x none \
        $(pkg-config --cflags --libs pare) -o generate.cxx)
    other=$(LD_LIBRARY_PATH="$work/usr/lib" "$work/generate.cxx" models/storyteller.gguf "Once upon a time")
    [ "$said" = "$other" ] || { echo "install: C++ says '$other', not '$said'"; exit 1; }
fi
# Two turns: the second finds the first in the cache.
printf 'Tell me about a fox.\nAnd then?\n' >"$work/input"
both chat models/storyteller.gguf "You tell stories."
says '^\[[0-9]* + [0-9]* tokens, 0 of them from the cache\]'
says '^\[[0-9]* + [0-9]* tokens, [1-9][0-9]* of them from the cache\]'
# Three texts, two of them the same: ones in the diagonal and where they meet, and nowhere else.
printf 'The cat sat on the mat.\nThe king rode to war.\nThe cat sat on the mat.\n' >"$work/input"
export POOLING=mean
both embed models/storyteller.gguf
says '^ 1.000  0.[0-9]*  1.000  The cat sat'
says '^ 0.[0-9]*  1.000  0.[0-9]*  The king rode'
# The file says nothing of pooling: refused, with a sentence.
unset POOLING
if LD_LIBRARY_PATH="$work/usr/lib" "$work/embed.shared" models/storyteller.gguf "a text" 2>"$work/why"; then
    echo "install: embeddings of a model without pooling"
    exit 1
fi
grep -q pooling "$work/why"

# Nothing but the promised names is visible, and libraries of the gateway are not needed.
names=$({ nm -D --defined-only "$work/usr/lib/libpare.so"; nm -g --defined-only "$work/usr/lib/libpare.a"; } |
    awk 'NF == 3 { print $3 }' | grep -v '^pare_' | grep -v '^PARE_' || true)
[ -z "$names" ] || { echo "install: libpare shows $names"; exit 1; }
needs=$(objdump -p "$work/usr/lib/libpare.so" | awk '$1 == "NEEDED" && $2 ~ /event|curl|sqlite|yaml/ { print $2 }')
[ -z "$needs" ] || { echo "install: libpare.so needs $needs"; exit 1; }
echo "install: program, man page, libpare and its examples work, shared and static"
