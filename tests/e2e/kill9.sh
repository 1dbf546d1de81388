#!/bin/sh
# kill -9 in the middle of load, many times: the database stays whole, and the cache answers again.
# usage: kill9.sh PARE [ROUNDS]
set -u
pare=$1
rounds=${2:-20}
work=$(mktemp -d)
server=
load=
cleanup() {
    [ -n "$server" ] && kill -9 "$server" 2>/dev/null
    [ -n "$load" ] && kill "$load" 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT
fail() {
    echo "kill9: $*"
    sed 's/^/  server: /' "$work/log" | tail -5
    exit 1
}

start() {
    rm -f "$work/log" # else the port of the server before may be read from it
    "$pare" serve --listen 127.0.0.1:0 --data "$work/data" >"$work/log" 2>&1 &
    server=$!
    tries=0
    port=
    while [ -z "$port" ]; do
        port=$(sed -n 's|.*dashboard at http://127.0.0.1:\([0-9]*\)/.*|\1|p' "$work/log" 2>/dev/null)
        tries=$((tries + 1))
        [ $tries -gt 200 ] && fail "the server did not start"
        sleep 0.05
    done
    url=http://127.0.0.1:$port
}

# One request that is answered and written before the first kill: it must be recalled after the last one.
known='{"model":"storyteller","messages":[{"role":"user","content":"Tell me about a rabbit."}],"max_tokens":12,"temperature":0}'
answered_by() {
    curl -s -o /dev/null -D - -H 'Content-Type: application/json' -d "$known" "$url/v1/chat/completions" |
        tr -d '\r' | sed -n 's/^x-pare-answered-by: //p'
}

# Load: a thousand small different requests, so that ledger and cache are written all the time.
i=0
while [ $i -lt 1000 ]; do
    echo "{\"model\":\"storyteller\",\"messages\":[{\"role\":\"user\",\"content\":\"Number $i\"}],\"max_tokens\":2,\"temperature\":0}"
    i=$((i + 1))
done >"$work/load.jsonl"

start
[ "$(answered_by)" = local:storyteller ] || fail "the first answer did not come from the model"
sleep 1.5 # longer than a commit takes
round=1
while [ "$round" -le "$rounds" ]; do
    "$pare" replay "$work/load.jsonl" --to "$url" --concurrency 8 >/dev/null 2>&1 &
    load=$!
    sleep "0.$((round * 7 % 9 + 1))"
    kill -9 "$server"
    wait "$server" 2>/dev/null
    wait "$load" 2>/dev/null
    load=
    check=$(sqlite3 "$work/data/pare.db" 'PRAGMA integrity_check')
    [ "$check" = ok ] || fail "round $round: integrity_check says $check"
    start
    round=$((round + 1))
done
rows=$(sqlite3 "$work/data/pare.db" 'SELECT count(*) FROM ledger')
by=$(answered_by)
[ "$by" = recall.exact ] || fail "after $rounds kills the stored answer was not recalled but came from '$by'"
[ "$rows" -gt "$rounds" ] || fail "only $rows ledger rows"
echo "kill9: $rounds kills, integrity ok each time, $rows ledger rows, the stored answer recalled"
