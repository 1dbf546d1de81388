#!/bin/sh
# `pare show`: exact values of tensors of every type, files of any architecture, and the memory it foretells against what
# `pare run` takes. usage: show.sh PARE
set -eu
pare=$1
data=../shared/conformance
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "show: $*"
    exit 1
}

# ---- values, bit for bit
if [ -d $data/quants ]; then
    for file in $data/quants/*.normal.f32; do
        type=$(basename "$file" .normal.f32)
        "$pare" show $data/quants/all-types.gguf --tensor "normal.$type" --out "$work/out.f32"
        cmp "$work/out.f32" "$file" || fail "$type"
    done
    "$pare" show $data/quants/all-types.gguf --tensor normal.Q4_K --out - | cmp - $data/quants/Q4_K.normal.f32 || fail "-"
else
    echo "show: $data is missing, its values are not compared"
fi

# ---- every file says what it is, as text and as JSON that others can read
for file in $data/tokenizers/*.gguf $data/quants/all-types.gguf $data/logits/*/model.gguf models/storyteller.gguf; do
    [ -f "$file" ] || continue
    "$pare" show "$file" --tensors --metadata >"$work/text" || fail "$file"
    grep -q '^architecture ' "$work/text" || fail "$file has no architecture"
    "$pare" show "$file" --tensors --metadata --json >"$work/json" || fail "$file --json"
    if command -v python3 >/dev/null; then
        python3 -c 'import json, sys
m = json.load(open(sys.argv[1]))
assert sum(t["tensors"] for t in m["types"]) == len(m["tensors"])
assert sum(t["bytes"] for t in m["tensors"]) == m["weight_bytes"] <= m["file_bytes"]' "$work/json" || fail "$file"
    fi
done
"$pare" show storyteller | grep -q '^parameters *4983552 ' || fail "parameters"
"$pare" show storyteller | grep -q '^pare runs it *yes' || fail "runs"

refused() { # sentence arguments...
    says=$1
    shift
    code=0
    "$pare" show "$@" >"$work/refused.txt" 2>&1 || code=$?
    [ $code -ne 0 ] && grep -q -e "$says" "$work/refused.txt" || fail "$*: exit code $code, no \"$says\""
}
refused 'no tensor' models/storyteller.gguf --tensor nothing --out "$work/x"
refused 'go together' models/storyteller.gguf --tensor output.weight
refused 'cannot be opened' "$work/nothing.gguf"
[ ! -e "$work/x" ] || fail "a refused tensor was written"

# ---- the memory of a chat that fills its context
if ! command -v python3 >/dev/null; then
    echo "show: no python3, memory is not measured"
    exit 0
fi
"$pare" synth --shape llama-160m --type q4_0 --out "$work/160m.gguf"
"$pare" synth --shape llama-small --type f16 --out "$work/small.gguf"
cat >"$work/measure.py" <<'END'
import json, os, subprocess, sys
pare, model, context, kv, words = sys.argv[1:6]
table = json.loads(subprocess.run([pare, "show", model, "--json"], capture_output=True, check=True).stdout)["memory"]
foretold = next(r["total"] for r in table if r["context"] == int(context) and r["kv"] == kv)
pid = os.fork()
if pid == 0:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execv(pare, [pare, "run", model, "rabbit " * int(words), "--raw", "--max-tokens", "700", "--context", context,
                    "--kv", kv])
_, status, usage = os.wait4(pid, 0)
taken = usage.ru_maxrss * 1024
print(f"show: {model} {context} {kv}: foretold {foretold / 1e6:.1f} MB, taken {taken / 1e6:.1f} MB "
      f"({100 * (foretold / taken - 1):+.1f} %)")
sys.exit(status != 0 or abs(foretold / taken - 1) > 0.05)
END
check() { # model context kv words
    python3 "$work/measure.py" "$pare" "$@" || fail "the memory foretold is more than 5 % off"
}
cd "$work"
check storyteller 512 f16 170
check storyteller 512 q4_0 170
check 160m.gguf 2048 f16 400
check 160m.gguf 2048 q8_0 400
check small.gguf 512 f16 90
echo "show: values, files and memory are right"
