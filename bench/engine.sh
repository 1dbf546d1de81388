#!/bin/sh
# The engine against llama.cpp (node-llama-cpp from npm), in rounds that alternate: the machine, pare, the machine,
# llama.cpp. Random weights in a real model's shape. Prints a table of medians, as docs/benchmarks.md has it.
#
# usage: bench/engine.sh [--shape NAME] [--runs N] [--spin] [--avx2] [ROUNDS [TYPE..]]
#   --shape NAME  of `pare synth --shape list` (default llama-1b)
#   --runs N      runs of each test in a round, of which the median counts (default 3)
#   --spin        decode of 1 and 8 sequences, each also with a busy neighbour (a shell that spins), and the ratio
#   --avx2        both programs with AVX2 and nothing newer
#   ROUNDS        default 3
#   TYPE          default q4_0 q8_0 q4_k_m f16 bf16; with --spin q4_0
#
# decode-N: N sequences step together; decode-N-C: each has C tokens in its cache. Ratios are medians over the rounds, so
# that what the machine does to both programs in a round cancels out. Environment: PARE, the program; BENCH_DIR, where
# models and npm packages are kept; PEER=no leaves llama.cpp out.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
shape=llama-1b
runs=3
spin=no
avx2=no
while [ $# -gt 0 ]; do
    case $1 in
    --shape) shape=$2 && shift 2 ;;
    --runs) runs=$2 && shift 2 ;;
    --spin) spin=yes && shift ;;
    --avx2) avx2=yes && shift ;;
    -*) sed -n '2,/^set/p' "$0" | sed '$d' >&2 && exit 2 ;;
    *) break ;;
    esac
done
rounds=${1:-3}
[ $# -gt 0 ] && shift
case $spin in
yes) types=${*:-q4_0} tests='decode-1 decode-8' ;;
*) types=${*:-q4_0 q8_0 q4_k_m f16 bf16} tests='prefill decode-1 decode-8 decode-8-512 decode-32' ;;
esac
pare=${PARE:-build/pare}
cache=${BENCH_DIR:-${TMPDIR:-/tmp}/pare-bench}
mkdir -p "$cache"
figures=$(mktemp "$cache/figures.XXXXXX")
neighbour=
cleanup() {
    [ -z "$neighbour" ] || kill -9 "$neighbour" 2>/dev/null || true
    rm -f "$figures" "$figures.peer"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# This version's addon has what bench/llama_cpp.mjs drives. It comes with a library a kind of processor and takes the best;
# haswell is the one of AVX2.
peer=${PEER:-yes}
packages=$cache
if [ $avx2 = yes ]; then
    export PARE_ISA=avx2
    packages=$cache/avx2
    mkdir -p "$packages"
fi
if [ "$peer" = yes ] && [ ! -d "$packages/node_modules/node-llama-cpp" ]; then
    npm install --prefix "$packages" --no-audit --no-fund --loglevel=error node-llama-cpp@3.22.1 \
        >"$packages/npm.log" 2>&1 || {
        peer=no
        echo "bench: node-llama-cpp could not be installed (see $packages/npm.log); only pare is measured" >&2
    }
fi
[ $avx2 = no ] || find "$packages" -name 'libggml-cpu-*.so' ! -name '*-haswell.so' -delete

# Figures: WHO TYPE TEST TOKENS_PER_S [OF_BANDWIDTH OF_INT8], and: machine TYPE GB/S TOPS. WHO is pare or llama.cpp, with
# "+spin" beside a neighbour.
machine() { # type
    "$pare" bench --roofline --json |
        sed -n 's/.*"read_gb_s":\([0-9.]*\),"int8_tops":\([0-9.]*\).*/machine '"$1"' \1 \2/p' >>"$figures"
}
# `pare bench --json` as figures. Contexts other than 0 are part of a test's name.
named() { # who type
    sed -n 's/.*"test":"\(prefill\|decode\)","tokens":[0-9]*,"batch":\([0-9]*\),"context":\([0-9]*\),"tokens_per_s":\([0-9.]*\),"of_bandwidth":\([0-9.]*\),"of_int8":\([0-9.]*\).*/\1 \2 \3 \4 \5 \6/p' |
        awk -v who="$1" -v type="$2" '{
            test = $1 == "prefill" ? $1 : "decode-" $2 ($3 > 0 ? "-" $3 : "")
            print who, type, test, $4, $5, $6
        }' >>"$figures"
}
# Each test in a process of its own, as llama.cpp's has a context of its own. The shape's context may be shorter than a
# test, hence --longest.
ours() { # who type model
    for t in $tests; do
        case $t in
        prefill) asked='--only prefill --prompt 512' ;;
        decode-*-*) asked="--only decode --batch $(echo "$t" | cut -d- -f2) --context ${t##*-}" ;;
        *) asked="--only decode --batch ${t#decode-}" ;;
        esac
        # shellcheck disable=SC2086
        "$pare" bench --model "$3" --runs "$runs" --longest 2048 --json $asked | named "$1" "$2"
    done
}
theirs() { # who type model
    [ "$peer" = yes ] || return 0
    # shellcheck disable=SC2086
    (cd "$packages" && node "$root/bench/llama_cpp.mjs" "$3" "$runs" $tests) >"$figures.peer" || {
        echo "bench: llama.cpp does not run $2; see above" >&2
        return 0
    }
    sed -n "s/^llama.cpp /$1 $2 /p" "$figures.peer" >>"$figures"
    rm -f "$figures.peer"
}
beside_neighbour() { # command...
    sh -c 'while :; do :; done' &
    neighbour=$!
    "$@"
    kill -9 "$neighbour" # TERM would be lost on a shell that has not begun yet
    wait "$neighbour" 2>/dev/null || true
    neighbour=
}

for type in $types; do
    model=$cache/$shape-$type.gguf
    [ -f "$model" ] || "$pare" synth --shape "$shape" --type "$type" -o "$model"
    r=1
    while [ "$r" -le "$rounds" ]; do
        echo "bench: $shape $type, round $r of $rounds" >&2
        machine "$type"
        ours pare "$type" "$model"
        [ $spin = no ] || beside_neighbour ours pare+spin "$type" "$model"
        machine "$type"
        theirs llama.cpp "$type" "$model"
        [ $spin = no ] || [ "$peer" = no ] || beside_neighbour theirs llama.cpp+spin "$type" "$model"
        r=$((r + 1))
    done
    machine "$type"
done

# The median of a column where the first columns are as given; "-" without a figure.
median() { # column who type [test]
    awk -v c="$1" -v w="$2" -v y="$3" -v t="${4:-}" '$1 == w && $2 == y && (t == "" || $3 == t) { print $c }' "$figures" |
        middle
}
middle() {
    sort -g | awk '{ v[NR] = $1 } END { print NR == 0 ? "-" : NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
ratio() { # who, of whom, type, test; round by round
    awk -v a="$1" -v b="$2" -v y="$3" -v t="$4" '$2 == y && $3 == t && $1 == a { x[++i] = $4 }
        $2 == y && $3 == t && $1 == b { z[++j] = $4 }
        END { for (k = 1; k <= i && k <= j; k++) print x[k] / z[k] }' "$figures" | middle
}
as() { # format value
    # shellcheck disable=SC2059
    if [ "$2" = - ]; then printf '%s' -; else printf "$1" "$2"; fi
}
share() {
    if [ "$1" = - ]; then printf '%s' -; else awk -v v="$1" 'BEGIN { printf "%.0f %%", 100 * v }'; fi
}

echo "engine: medians of $rounds alternating rounds, $shape, $(nproc) threads, tokens a second"
echo
if [ $spin = yes ]; then
    echo '| type | test | pare | beside a busy neighbour | ratio | llama.cpp | beside a busy neighbour | ratio |'
    echo '|---|---|---|---|---|---|---|---|'
else
    echo '| type | test | pare | of bandwidth | of int8 | llama.cpp | pare / llama.cpp |'
    echo '|---|---|---|---|---|---|---|'
fi
for type in $types; do
    for t in $tests; do
        printf '| %s | %s | %s |' "$type" "$t" "$(as %.1f "$(median 4 pare "$type" "$t")")"
        if [ $spin = yes ]; then
            printf ' %s | %s | %s | %s | %s |\n' "$(as %.1f "$(median 4 pare+spin "$type" "$t")")" \
                "$(as %.2f "$(ratio pare+spin pare "$type" "$t")")" "$(as %.1f "$(median 4 llama.cpp "$type" "$t")")" \
                "$(as %.1f "$(median 4 llama.cpp+spin "$type" "$t")")" \
                "$(as %.2f "$(ratio llama.cpp+spin llama.cpp "$type" "$t")")"
        else
            printf ' %s | %s | %s | %s |\n' "$(share "$(median 5 pare "$type" "$t")")" \
                "$(share "$(median 6 pare "$type" "$t")")" "$(as %.1f "$(median 4 llama.cpp "$type" "$t")")" \
                "$(as %.2f "$(ratio pare llama.cpp "$type" "$t")")"
        fi
    done
done
echo
for type in $types; do
    echo "machine beside $type: $(as %.1f "$(median 3 machine "$type")") GB/s read, $(as %.2f "$(median 4 machine "$type")") TOPS int8"
done
