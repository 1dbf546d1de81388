#!/bin/sh
# All checks of `make lint`; every one runs even when an earlier one complains, so that one run shows all there is.
#
#   tools/lint.sh [JOBS]
set -eu
jobs=${1:-2}
status=0

# 14 everywhere: another version formats otherwise and knows other checks.
version14() {
    for command in "$1" "$1-14"; do
        if "$command" --version 2>/dev/null | grep -q 'version 14\.'; then
            echo "$command"
            return
        fi
    done
    echo "lint: $1 14 is missing (make lint installs it on Debian and Ubuntu)" >&2
    exit 1
}
format=$(version14 clang-format)
tidy=$(version14 clang-tidy)

step() {
    name=$1
    shift
    if "$@"; then
        echo "lint: $name: clean"
    else
        echo "lint: $name: see above" >&2
        status=1
    fi
}

check_format() {
    find src include tests -name '*.[ch]' -not -path '*/node_modules/*' -print0 |
        xargs -0 "$format" --dry-run -Werror
}

check_build() {
    cmake -S . -B build-clang -G Ninja -DCMAKE_C_COMPILER=clang-14 >build-clang.log 2>&1 ||
        { cat build-clang.log >&2; rm -f build-clang.log; return 1; }
    rm -f build-clang.log
    cmake --build build-clang -j "$jobs" -- --quiet
}

# Largest first, so that the last minutes are not one long file on one core.
check_tidy() {
    find src -name '*.c' -printf '%s %p\n' | sort -rn | cut -d' ' -f2- |
        xargs -P "$jobs" -n 1 sh -c 'said=$("$0" -p build-clang --quiet "$1" 2>&1) || { echo "$said"; exit 1; }' "$tidy"
}

step "format" check_format
step "floors, file lengths, paths" tools/lint-floors.sh
step "clang -Wall -Wextra -Werror" check_build
step "clang-tidy" check_tidy
exit $status
