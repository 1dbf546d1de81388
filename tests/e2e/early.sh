#!/bin/sh
# SIGTERM and SIGINT while models load: pare ends within a second, cleanly, and the ledger is closed.
# usage: early.sh PARE
set -u
pare=$1
work=$(mktemp -d)
server=
cleanup() {
    [ -n "$server" ] && kill -9 "$server" 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT
fail() {
    echo "early: $*"
    sed 's/^/  server: /' "$work/log" | tail -5
    exit 1
}

# Several gigabytes to pack in all: the same file under many names.
"$pare" synth --shape llama-1b --type q4_0 -o "$work/large.gguf" >/dev/null || fail "no model to load"
models=
for i in 1 2 3 4 5 6 7 8; do
    models="$models --model m$i=$work/large.gguf"
done

now_ms() {
    echo $(($(date +%s%N) / 1000000))
}

# The names of signals, and how long to wait before each.
for round in "TERM 0.8" "INT 0.3"; do
    signal=${round% *}
    # shellcheck disable=SC2086 # a list of options
    "$pare" serve --listen 127.0.0.1:0 --data "$work/data" --context 256 --sequences 1 $models >"$work/log" 2>&1 &
    server=$!
    sleep "${round#* }"
    grep -q 'dashboard at' "$work/log" && fail "the models were loaded before the signal"
    began=$(now_ms)
    kill -s "$signal" "$server" || fail "it had ended before SIG$signal"
    wait "$server"
    code=$?
    took=$(($(now_ms) - began))
    server=
    [ "$code" -eq 0 ] || fail "exit $code after SIG$signal"
    [ "$took" -le 1000 ] || fail "it took $took ms to end after SIG$signal"
    # A database that was closed leaves no write-ahead log behind.
    [ ! -e "$work/data/pare.db-wal" ] || fail "the ledger was not closed"
    echo "early: SIG$signal after ${round#* } s: ended in $took ms"
done
