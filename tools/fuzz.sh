#!/bin/sh
# Builds and runs each fuzz target of tests/fuzz/ for a while; stops at the first crash, whose input libFuzzer keeps.
#
#   tools/fuzz.sh BUILD_FOLDER SECONDS JOBS
set -eu
folder=$1
seconds=$2
jobs=$3
found=no
for source in tests/fuzz/fuzz_*.c; do
    [ -f "$source" ] || continue
    found=yes
    name=$(basename "$source" .c)
    cmake --build "$folder" -j "$jobs" --target "$name" -- --quiet
    mkdir -p "$folder/corpus/$name"
    seeds=tests/fuzz/seeds/${name#fuzz_}
    [ -d "$seeds" ] || seeds=""
    echo "fuzz: $name for $seconds s"
    # shellcheck disable=SC2086
    "$folder/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="$folder/$name-" "$folder/corpus/$name" $seeds
done
if [ $found = no ]; then
    echo "fuzz: tests/fuzz/ has no fuzz_*.c" >&2
    exit 1
fi
