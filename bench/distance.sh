#!/bin/sh
# How far the logits of a quantised model lie from the exact ones, for pare and for llama.cpp (node-llama-cpp from npm).
# Exact: float32 products with the same dequantised weights, F32 keys and values (a path that is tested against reference
# logits: docs/models.md). Each model is written in each format, and both programs read that same file.
#
# usage: bench/distance.sh [MODEL..]
#   MODEL  a GGUF file. Its tokens: `tokens.json` beside it (a list of ids, or of lists), else the first 250 of
#          bench/distance.txt. Default: the bundled model, `pare synth --shape llama-small`, and llama of the conformance
#          set where that is there.
#
# A table a model, with F16 keys and values as both programs have them by default, and with F32: rms and max of the
# differences of log-probabilities, relative to the exact ones' deviation; positions with the same best token; divergence
# in nats. F32 is there as a control: pare's is the exact file itself. Environment: PARE, the program; BENCH_DIR, where npm
# packages are kept; TYPES; PEER=no leaves llama.cpp out.
set -eu
from=$PWD
cd "$(dirname "$0")/.."
root=$PWD
pare=${PARE:-build/pare}
cache=${BENCH_DIR:-${TMPDIR:-/tmp}/pare-bench}
types=${TYPES:-f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q2_k q3_k q4_k q5_k q6_k iq4_nl iq4_xs mxfp4}
conformance=../shared/conformance/logits/llama/model.gguf
command -v "$pare" >/dev/null || { echo "bench: $pare is missing (make build)" >&2; exit 1; }
command -v node >/dev/null || { echo "bench: node is missing (apt-get install nodejs)" >&2; exit 1; }
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
peer=${PEER:-yes}
if [ "$peer" = yes ] && [ ! -d "$cache/node_modules/node-llama-cpp" ]; then
    npm install --prefix "$cache" --no-audit --no-fund --loglevel=error node-llama-cpp@3.22.1 >"$cache/npm.log" 2>&1 || {
        peer=no
        echo "bench: node-llama-cpp could not be installed (see $cache/npm.log); only pare is measured" >&2
    }
fi
work=$(mktemp -d "$cache/distance.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

if [ $# -eq 0 ]; then
    "$pare" synth --shape llama-small --type f32 -o "$work/llama-small.gguf"
    set -- "$root/models/storyteller.gguf" "$work/llama-small.gguf"
    [ ! -f $conformance ] || set -- "$@" "$root/$conformance"
fi

ids() { # model
    if [ -f "$(dirname "$1")/tokens.json" ]; then
        cp "$(dirname "$1")/tokens.json" "$work/ids.json"
    else
        "$pare" tokenize --model "$1" --bos <bench/distance.txt | tr -s ' ' '\n' | sed '/^$/d' | sed 250q |
            paste -sd, - | sed 's/.*/[&]/' >"$work/ids.json"
    fi
}
# Every matrix in TYPE; false where rows are no multiple of its block, and another type took its place.
written() { # model type
    "$pare" quantize "$1" "$work/model.gguf" --type f32 --tensor "*=$2" --allow-requantize >"$work/said" || exit 1
    ! sed -n 's/^ *[0-9]* tensors: //p' "$work/said" | tr ',' '\n' | grep -vqE "^ *(f32|$2) [0-9]+$"
}
theirs() { # kv; prints figures
    [ "$peer" = yes ] && (cd "$cache" && node "$root/bench/distance.mjs" logits "$work/model.gguf" "$work/ids.json" "$1" \
        "$work/peer.f32") && node bench/distance.mjs compare "$work/ids.json" "$work/exact.f32" "$work/peer.f32" ||
        echo '- | - | - | -'
}
row() { # type kv
    "$pare" logits --model "$work/model.gguf" --tokens "$work/ids.json" --out "$work/ours.f32" --kv "$2"
    ours=$(node bench/distance.mjs compare "$work/ids.json" "$work/exact.f32" "$work/ours.f32")
    echo "| $1 | $ours | $(theirs "$2") |" >>"$work/table-$2"
}
measure() { # model
    rm -f "$work"/table-*
    ids "$1"
    for type in $types; do
        written "$1" "$type" || { echo "bench: ${1##*/} has rows that blocks of $type do not divide; left out" >&2; continue; }
        "$pare" quantize "$work/model.gguf" "$work/exact.gguf" --type f32 --allow-requantize >"$work/said"
        "$pare" logits --model "$work/exact.gguf" --tokens "$work/ids.json" --out "$work/exact.f32" --kv f32
        row "$type" f16
        row "$type" f32
    done
    for kv in f16 f32; do
        [ -f "$work/table-$kv" ] || continue
        echo
        echo "$("$pare" show --json "$1" | sed 's/^{"file":"[^"]*","name":"\([^"]*\)".*/\1/'), keys and values $kv"
        echo
        echo '| type | pare: rms | max | same best | divergence | llama.cpp: rms | max | same best | divergence |'
        echo '|---|---|---|---|---|---|---|---|---|'
        cat "$work/table-$kv"
    done
}

for model; do
    case $model in
    /*) ;;
    *) model=$from/$model ;;
    esac
    [ -f "$model" ] || { echo "bench: there is no $model" >&2; exit 1; }
    echo "bench: ${model##*/}" >&2
    measure "$model"
done
