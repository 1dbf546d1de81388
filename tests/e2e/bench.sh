#!/bin/sh
# What `pare bench` prints: each line is JSON with the members that others read, shares are plausible, the table for
# people is there, nothing is left behind, and what cannot work is refused with a sentence. usage: bench.sh PARE
set -eu
pare=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tmp"
export TMPDIR="$work/tmp"
fail() {
    echo "bench: $*"
    cat "$work"/*.jsonl "$work"/*.txt 2>/dev/null | tail -30
    exit 1
}
# The value of a member in the first line of a test; sed is enough for numbers and plain words.
member() { # file test member
    sed -n "s/^{\"test\":\"$2\",.*\"$3\":\"\{0,1\}\([^,\"}]*\).*/\1/p" "$1" | head -n 1
}
positive() { # file test members...
    file=$1
    test=$2
    shift 2
    for m in "$@"; do
        v=$(member "$file" "$test" "$m")
        awk -v v="$v" 'BEGIN { exit !(v != "" && v + 0 > 0) }' || fail "$test: \"$m\" is \"$v\""
    done
}
equal() { # file test member value
    [ "$(member "$1" "$2" "$3")" = "$4" ] || fail "$2: \"$3\" is \"$(member "$1" "$2" "$3")\", not \"$4\""
}

all=$work/all.jsonl
"$pare" bench --shape llama-tiny --type q8_0 --runs 1 --steps 4 --batch 1,3 --mixed --shared 5 --json >"$all"
if command -v python3 >/dev/null; then # every line on its own, by somebody else's parser
    python3 -c 'import json, sys
for line in sys.stdin: assert isinstance(json.loads(line)["test"], str)' <"$all" || fail "a line is not JSON"
fi
grep -qv '^{"test":"[a-z-]*",.*}$' "$all" && fail "a line is not an object with a test"
for t in prefill decode shared; do
    positive "$all" $t tokens batch tokens_per_s of_bandwidth of_int8 ms threads
    equal "$all" $t type q8_0
    # 164 thousand parameters stay in cache, so bandwidth may be surpassed, but not without bound; int8 may not.
    awk -v b="$(member "$all" $t of_bandwidth)" -v i="$(member "$all" $t of_int8)" \
        'BEGIN { exit !(b < 20 && i < 1.2) }' || fail "$t: a share is out of range"
done
positive "$all" machine read_gb_s int8_tops f32_tflops threads
equal "$all" prefill tokens 256 # as many as the context of the shape
equal "$all" prefill context 0
equal "$all" load name 'llama-tiny q8_0 (random weights)'
positive "$all" load seconds first_token_seconds parameters weight_bytes
[ "$(grep -c '"test":"decode"' "$all")" = 2 ] || fail "two batches are two lines"
grep -q '"test":"decode","tokens":12,"batch":3,' "$all" || fail "3 sequences and 4 steps are 12 tokens"
positive "$all" first-token cold_ms cached_ms cached_tokens ratio
positive "$all" mixed streams before_p50_ms before_p99_ms during_p50_ms during_p99_ms p50_ratio p99_ratio
positive "$all" shared blocks_held blocks_apart
awk -v h="$(member "$all" shared blocks_held)" -v a="$(member "$all" shared blocks_apart)" \
    'BEGIN { exit !(h < a / 2) }' || fail "5 sequences under one prefix hold about as much as apart"
positive "$all" memory peak_rss_bytes weight_bytes kv_bytes
awk -v p="$(member "$all" memory peak_rss_bytes)" 'BEGIN { exit !(p > 1e6 && p < 4e8) }' ||
    fail "the peak counts what the readings of the machine take"

# Parts, contexts, caches, and a context beyond the model's.
some=$work/some.jsonl
"$pare" bench --shape llama-tiny --type f16 --runs 2 --steps 2 --batch 2 --context 300 --longest 512 --kv f32 \
    --only decode --json >"$some"
equal "$some" decode context 300
equal "$some" decode kv f32
equal "$some" decode type f16
grep -q '"test":"prefill"' "$some" && fail "--only decode runs prefill too"

"$pare" bench --roofline >"$work/roof.txt"
grep -q '^machine: .* GB/s read, .* TOPS int8' "$work/roof.txt" || fail "--roofline prints no machine"
"$pare" bench --roofline --json >"$work/roof.jsonl"
positive "$work/roof.jsonl" machine read_gb_s int8_tops f32_tflops threads
[ "$(wc -l <"$work/roof.jsonl")" = 1 ] || fail "--roofline alone is one line"

"$pare" bench --shape llama-tiny --runs 1 --steps 1 --batch 1 --only prefill,decode >"$work/table.txt"
grep -q 'of bandwidth  *of int8' "$work/table.txt" || fail "the table has no head"
[ "$(grep -c '^\(prefill\|decode\) ' "$work/table.txt")" = 2 ] || fail "the table has not two rows"

# An encoder: embeddings a second in place of what it cannot do; a model that writes text has them when it is asked.
encoder=$work/encoder.jsonl
"$pare" bench --shape bert-tiny --type q8_0 --runs 1 --batch 1,9 --json >"$encoder"
positive "$encoder" load seconds parameters weight_bytes
positive "$encoder" embed texts tokens embeddings_per_s tokens_per_s of_bandwidth of_int8 ms steps threads
grep -q '"test":"\(decode\|prefill\|first-token\)"\|first_token' "$encoder" && fail "an encoder has no first token"
[ "$(grep -c '"test":"embed"' "$encoder")" = 2 ] || fail "two batches of texts are two lines"
grep -q '"test":"embed","texts":9,"tokens":128,' "$encoder" || fail "9 texts of 128 tokens are not measured"
awk -v b="$(member "$encoder" embed of_bandwidth)" -v i="$(member "$encoder" embed of_int8)" \
    'BEGIN { exit !(b < 20 && i < 1.2) }' || fail "embed: a share is out of range"
"$pare" bench --shape llama-tiny --runs 1 --batch 2 --only embed --prompt 40 >"$work/embed.txt"
grep -q 'embeddings/s  *tokens/s' "$work/embed.txt" || fail "the table of embeddings has no head"
grep -q '^embed  *2  *40 ' "$work/embed.txt" || fail "--only embed prints no row"

refused() { # sentence arguments...
    says=$1
    shift
    code=0
    "$pare" bench "$@" >"$work/refused.txt" 2>&1 || code=$?
    [ $code -ne 0 ] && grep -q "$says" "$work/refused.txt" || fail "$*: exit code $code, no \"$says\""
}
refused 'Name either' --json
refused 'not "x"' --shape llama-tiny --batch 1,x
refused 'not "decod"' --shape llama-tiny --only decod
refused 'not "q3"' --shape llama-tiny --kv q3
refused 'needs --shape' --model nothing.gguf --type q4_0
refused 'nothing.gguf' --model nothing.gguf
refused 'no shape' --shape llama-huge
refused 'see --longest' --shape llama-tiny --only decode --context 300
refused 'see --longest' --shape llama-tiny --only prefill --prompt 300
refused 'see --longest' --shape llama-tiny --only embed --prompt 300
refused 'is an encoder and writes no text' --shape bert-tiny --only decode
[ -z "$(ls "$work/tmp")" ] || fail "$(ls "$work/tmp") is left behind"
echo "bench: lines, shares, parts, table and refusals are right"
