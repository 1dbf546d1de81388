#!/bin/sh
# What programs that were compiled yesterday rely on: libpare's names and their versions, and the layout and
# declarations of include/pare.h, compared with tests/e2e/abi.txt. The header must be C99 and C++17 for every compiler
# that is here.
# usage: abi.sh BUILD_DIR [--write]     --write: the change is meant; writes abi.txt
#
# Allowed within one major version: members at the end of a struct (for its first members see libpare_structs.c),
# further functions in a new node of cmake/libpare.map, further constants. All else needs a new major version.
set -eu
build=$1
here=$(dirname "$0")
root=$here/../..
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

printf '#include <pare.h>\nint main(void) { return pare_version() == 0; }\n' >"$work/uses.c"
cp "$work/uses.c" "$work/uses.cpp"
warn="-Wall -Wextra -Wpedantic -Werror -fsyntax-only -I$root/include"
for compiler in cc gcc clang clang-14; do
    # shellcheck disable=SC2086
    ! command -v $compiler >/dev/null || $compiler -std=c99 $warn "$work/uses.c" ||
        { echo "abi: pare.h is not C99 for $compiler"; exit 1; }
done
for compiler in c++ g++ clang++ clang++-14; do
    # shellcheck disable=SC2086
    ! command -v $compiler >/dev/null || $compiler -std=c++17 $warn "$work/uses.cpp" ||
        { echo "abi: pare.h is not C++17 for $compiler"; exit 1; }
done

if [ "$(getconf LONG_BIT)" != 64 ]; then
    echo "abi: abi.txt holds the layout of 64-bit machines; skipped"
    exit 77
fi
awk -f "$here/abi.awk" "$root/include/pare.h" >"$work/probe.c"
cc -std=c17 -Wall -Wextra -Werror -I"$root/include" "$work/probe.c" -o "$work/probe"
{
    echo "soname $(objdump -p "$build/libpare.so" | awk '$1 == "SONAME" { print $2 }')"
    nm -D --defined-only --with-symbol-versions "$build/libpare.so" |
        awk '$2 != "A" { print "symbol " $3 }' | LC_ALL=C sort
    "$work/probe"
} >"$work/abi.txt"

# The map and the header name the same functions.
sed -n 's/^symbol \([a-z_]*\)@.*/\1/p' "$work/abi.txt" >"$work/shown"
sed -n 's/^function [^(]*[ *]\(pare_[a-z_]*\)(.*/\1/p' "$work/abi.txt" | LC_ALL=C sort >"$work/declared"
diff "$work/shown" "$work/declared" || { echo "abi: < is shown by libpare.so, > declared in pare.h"; exit 1; }

if [ "${2:-}" = --write ]; then
    cp "$work/abi.txt" "$here/abi.txt"
    echo "abi: written"
    exit
fi
diff "$here/abi.txt" "$work/abi.txt" || {
    echo "abi: < is promised, > is what the tree has. If that is meant: sh tests/e2e/abi.sh $build --write"
    exit 1
}
echo "abi: $(wc -l <"$work/declared") functions and all structs are as promised"
