#!/bin/sh
# `pare quantize` and `pare eval` on the bundled model: files that run, numbers that somebody else computes from `pare
# logits`, refusals, and that Ctrl-C leaves nothing. usage: quantize.sh PARE [MODEL.gguf]
set -eu
pare=$1
model=${2:-models/storyteller.gguf}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "quantize: $*"
    exit 1
}
number() { # file member; the first of that name
    grep -o "\"$2\":[-0-9.e+]*" "$1" | head -n 1 | cut -d: -f2
}
holds() { # expression of awk
    awk "BEGIN { exit !($1) }" || fail "$1 does not hold"
}

cat >"$work/text.txt" <<'END'
Once upon a time there was a little rabbit who lived at the edge of a great wood. Every morning he went out to
look for clover, and every evening he came home and told his mother what he had seen. "You must not go near the
mill," said she, "for the miller has a dog." But the rabbit was curious, and one day he went to see the mill.
END

# ---- to F16, and from there to every type; each file loads and answers, and the finer the nearer
"$pare" quantize "$model" "$work/f16.gguf" --type f16 --json >"$work/f16.json"
"$pare" eval perplexity --model "$work/f16.gguf" --text "$work/text.txt" --json >"$work/f16.ppl"
for type in q8_0 q6_k q5_k_m q4_k_m q4_k_s q3_k_m q2_k q4_0 q5_1 iq4_nl iq4_xs mxfp4 bf16; do
    "$pare" quantize "$work/f16.gguf" "$work/$type.gguf" --type $type --json >"$work/$type.json"
    "$pare" show "$work/$type.gguf" --json >"$work/$type.show"
    "$pare" eval kld --model "$work/$type.gguf" --reference "$work/f16.gguf" --text "$work/text.txt" --json \
        >"$work/$type.kld"
    "$pare" run "$work/$type.gguf" "Tell me a story" --max-tokens 8 --temperature 0 >"$work/answer.txt"
    [ -s "$work/answer.txt" ] || fail "$type answers nothing"
    holds "$(number "$work/$type.json" relative_rms) < 0.35 && $(number "$work/$type.json" relative_rms) > 0"
done
for pair in q8_0:q6_k q6_k:q5_k_m q5_k_m:q4_k_m q4_k_m:q3_k_m q3_k_m:q2_k; do
    holds "$(number "$work/${pair%:*}.kld" mean) < $(number "$work/${pair#*:}.kld" mean)"
    holds "$(number "$work/${pair%:*}.json" bytes) > $(number "$work/${pair#*:}.json" bytes)"
done
"$pare" show "$work/q4_k_m.gguf" --metadata | grep -q 'general.file_type .* 15$' || fail "file_type is not 15"

# ---- a model against itself
"$pare" eval kld --model "$work/q4_0.gguf" --reference "$work/q4_0.gguf" --text "$work/text.txt" --json >"$work/self"
grep -q '"kl":{"mean":0,"standard_error":0,"median":0,"p90":0,"p99":0,"max":0}' "$work/self" || fail "$(cat "$work/self")"
grep -q '"agreement":1,' "$work/self" || fail "$(cat "$work/self")"
"$pare" eval diff "$work/q4_0.gguf" "$work/q4_0.gguf" --text "$work/text.txt" | grep -q 'bit for bit' || fail "self diff"
code=0
"$pare" eval diff "$work/f16.gguf" "$work/q4_0.gguf" --text "$work/text.txt" --tolerance 1e-6 >"$work/diff" || code=$?
[ $code = 1 ] && grep -q '^first difference: list 0, position 0 ' "$work/diff" || fail "diff: code $code"
"$pare" eval diff "$work/f16.gguf" "$work/q4_0.gguf" --text "$work/text.txt" --tolerance 1000 >/dev/null || fail "1000"

# ---- the same numbers from `pare logits`, in Python
if command -v python3 >/dev/null; then
    "$pare" tokenize --model "$work/f16.gguf" <"$work/text.txt" | sed 's/^/[/; s/$/]/; s/ /,/g' >"$work/ids.json"
    for type in f16 q3_k_m; do
        "$pare" logits --model "$work/$type.gguf" --tokens "$work/ids.json" --out "$work/$type.f32"
    done
    "$pare" eval perplexity --model "$work/f16.gguf" --tokens "$work/ids.json" --json >"$work/ids.ppl"
    "$pare" eval perplexity --model "$work/f16.gguf" --tokens "$work/ids.json" --context 32 --stride 8 --json \
        >"$work/slid.ppl"
    python3 - "$work" <<'END' || fail "the numbers of eval are not those of pare logits"
import array, json, math, sys
work = sys.argv[1]
ids = json.load(open(work + "/ids.json"))
def rows(name):
    a = array.array("f")
    a.frombytes(open(f"{work}/{name}.f32", "rb").read())
    n = len(a) // len(ids)
    return [a[i * n:(i + 1) * n] for i in range(len(ids))]
def logp(row):
    top = max(row)
    total = top + math.log(math.fsum(math.exp(x - top) for x in row))
    return [x - total for x in row]
p = [logp(r) for r in rows("f16")]
q = [logp(r) for r in rows("q3_k_m")]
n = len(ids) - 1
nll = [-p[i][ids[i + 1]] for i in range(n)]
mean = sum(nll) / n
error = math.sqrt(sum((x - mean) ** 2 for x in nll) / (n - 1) / n)
def close(name, a, b, within):
    assert abs(a - b) <= within, (name, a, b)
e = json.load(open(work + "/ids.ppl"))
close("nll", e["nll"], mean, 1e-6)
close("perplexity", e["perplexity"], math.exp(mean), 1e-3)
close("error", e["standard_error"], error, 1e-6)
assert e["tokens"] == n
kl = sorted(sum(math.exp(a) * (a - b) for a, b in zip(p[i], q[i])) for i in range(n))
same = sum(p[i].index(max(p[i])) == q[i].index(max(q[i])) for i in range(n))
k = json.load(open(work + "/q3_k_m.kld"))
close("kl", k["kl"]["mean"], sum(kl) / n, 1e-6)
close("max", k["kl"]["max"], kl[-1], 1e-6)
close("top", k["top1"]["agreement"], same / n, 1e-9)
s = json.load(open(work + "/slid.ppl"))
assert s["tokens"] == n and s["context"] == 32 and s["stride"] == 8
assert 0 < abs(s["nll"] - mean) < 1, "windows of 32 see less than the whole text"
END
    [ "$(number "$work/ids.ppl" nll)" = "$(number "$work/f16.ppl" nll)" ] || fail "--text and --tokens differ"
fi

# ---- refusals
refused() { # sentence arguments...
    says=$1
    shift
    code=0
    "$pare" "$@" >"$work/refused.txt" 2>&1 || code=$?
    [ $code -ne 0 ] && grep -q -e "$says" "$work/refused.txt" || fail "$*: exit code $code, no \"$says\""
}
refused 'allow-requantize' quantize "$model" "$work/no.gguf" --type q4_0
refused 'q9_k' quantize "$work/f16.gguf" "$work/no.gguf" --type q9_k
refused 'no tensor' quantize "$work/f16.gguf" "$work/no.gguf" --type q8_0 --tensor 'x*=q4_0'
refused 'PATTERN=TYPE' quantize "$work/f16.gguf" "$work/no.gguf" --type q8_0 --tensor x
refused 'the source itself' quantize "$work/f16.gguf" "$work/f16.gguf" --type q8_0
refused 'needed' quantize "$work/f16.gguf" --type q8_0
refused 'perplexity, kld or diff' eval perplex --model "$model"
refused '--text or --tokens' eval perplexity --model "$model"
refused 'context 100000' eval perplexity --model "$model" --text "$work/text.txt" --context 100000
[ ! -e "$work/no.gguf" ] || fail "a refused file is there"
"$pare" quantize "$work/f16.gguf" --type q4_k_m --dry-run --tensor '*attn_q*=q8_0' | grep -q 'attn_q.weight .*q8_0.*(rule)' ||
    fail "--dry-run does not show the rule"

# ---- Ctrl-C leaves nothing
mkdir "$work/stop"
"$pare" synth --shape llama-160m --type f16 --out "$work/large.gguf"
"$pare" quantize "$work/large.gguf" "$work/stop/q.gguf" --type q3_k_m >/dev/null 2>&1 &
pid=$!
i=0
while [ -z "$(ls "$work/stop")" ] && [ $i -lt 200 ]; do
    sleep 0.02
    i=$((i + 1))
done
[ -n "$(ls "$work/stop")" ] || fail "nothing was begun"
kill -TERM $pid # a shell lets its background jobs ignore SIGINT
code=0
wait $pid || code=$?
[ $code -gt 128 ] || fail "stopped: exit code $code"
[ -z "$(ls "$work/stop")" ] || fail "$(ls "$work/stop") is left behind"
echo "quantize: types, distances, numbers, refusals and stopping are right"
