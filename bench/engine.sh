#!/bin/sh
# The engine against llama.cpp (node-llama-cpp from npm), alternating in one run, on a llama-1b shape with random weights.
# usage: bench/engine.sh [ROUNDS] [TYPE]
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-3}
type=${2:-q4_0}
pare=${PARE:-build/pare}
cache=${BENCH_DIR:-${TMPDIR:-/tmp}/pare-bench}
mkdir -p "$cache"
model=$cache/llama-1b-$type.gguf
[ -f "$model" ] || "$pare" synth --shape llama-1b --type "$type" -o "$model"
peer=yes
if [ ! -d "$cache/node_modules/node-llama-cpp" ]; then
    npm install --prefix "$cache" --no-audit --no-fund --loglevel=error node-llama-cpp@3 >"$cache/npm.log" 2>&1 || peer=no
fi
[ "$peer" = yes ] || echo "bench: node-llama-cpp could not be installed; only pare is measured" >&2
figures=$cache/figures.$$
trap 'rm -f "$figures"' EXIT
: >"$figures"
r=1
while [ "$r" -le "$rounds" ]; do
    "$pare" bench --model "$model" --runs 3 --json |
        sed -n 's/.*"test":"\(prefill\|decode\)","tokens":[0-9]*,"batch":\([0-9]*\),.*"tokens_per_s":\([0-9.]*\).*/pare \1-\2 \3/p' \
            >>"$figures"
    if [ "$peer" = yes ]; then
        (cd "$cache" && node "$OLDPWD/bench/llama_cpp.mjs" "$model") >>"$figures" || peer=no
    fi
    r=$((r + 1))
done
echo "engine: medians of $rounds alternating runs, llama-1b $type, tokens/s, $(nproc) threads"
printf '%-12s %10s %12s %8s\n' test pare llama.cpp ratio
for t in prefill-1 decode-1 decode-2 decode-4 decode-8 decode-16 decode-32; do
    a=$(awk -v t=$t '$1 == "pare" && $2 == t { print $3 }' "$figures" | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }')
    b=$(awk -v t=$t '$1 == "llama.cpp" && $2 == t { print $3 }' "$figures" | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }')
    awk -v t=$t -v a="$a" -v b="$b" 'BEGIN { printf "%-12s %10.1f %12s %8s\n", t, a, b == "" ? "-" : sprintf("%.1f", b), b == "" ? "-" : sprintf("%.2f", a / b) }'
done
