#!/bin/sh
# `pare key` beside a running server: a key is let in within a second, revoked within a second, and its secret is nowhere
# but in what was printed. usage: key.sh PARE
set -eu
pare=$1
work=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
fail() {
    echo "key: $*"
    exit 1
}
key() {
    verb=$1
    shift
    "$pare" key "$verb" "$@" --data "$work/data"
}

# ---- without a server
! key list 2>"$work/said" || fail "there is nothing to list"
grep -q 'no database' "$work/said" || fail "the sentence: $(cat "$work/said")"
secret=$(key create ann --group team --money-month 20 --models 'story*' --rpm 60 2>/dev/null)
echo "$secret" | grep -Eq '^pare-[0-9a-f]{64}$' || fail "the secret is $secret"
! key create ann 2>/dev/null || fail "a name was given twice"
! key create 'two words' 2>/dev/null || fail "a name with a blank"
! key create bob --expires soon 2>/dev/null || fail "soon is no date"
! key budget ann 2>/dev/null || fail "a budget without a limit"
! key budget nobody --rpm 5 2>/dev/null || fail "nobody has a budget"
key budget --group team --money-day 0.5
key list >"$work/list"
grep -Eq '^ann +team +active +0.000000 +0.000000  \$/month 20, rpm 60, models story\*$' "$work/list" || fail "$(cat "$work/list")"
grep -Eq '^team +\(group\) .*\$/day 0.5$' "$work/list" || fail "$(cat "$work/list")"
! grep -rqa "$secret" "$work/data" || fail "the secret is in the database"

# ---- beside one: an open address is allowed, since there is a key
"$pare" serve --listen 0.0.0.0:0 --data "$work/data" >"$work/log" 2>&1 &
server=$!
port=
tries=0
while [ -z "$port" ]; do
    port=$(sed -n 's|.*dashboard at http://0.0.0.0:\([0-9]*\)/.*|\1|p' "$work/log")
    tries=$((tries + 1))
    [ $tries -le 200 ] || fail "the server did not start: $(cat "$work/log")"
    sleep 0.05
done
ask() {
    curl -s -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $1" "http://127.0.0.1:$port/v1/models"
}
wait_for() { # status, secret: within 3 seconds, on a busy machine
    tries=0
    while [ "$(ask "$2")" != "$1" ]; do
        tries=$((tries + 1))
        [ $tries -le 60 ] || fail "still $(ask "$2") instead of $1"
        sleep 0.05
    done
}
[ "$(ask none)" = 401 ] || fail "anybody may ask"
[ "$(ask "$secret")" = 200 ] || fail "the key may not ask"
second=$(key create bob --admin --json | sed -n 's/.*"key":"\([^"]*\)".*/\1/p')
wait_for 200 "$second"
[ "$(curl -s -o /dev/null -w '%{http_code}' -H "x-api-key: $second" "http://127.0.0.1:$port/api/keys")" = 200 ] ||
    fail "--admin"
key revoke ann
wait_for 401 "$secret"
key revoke bob
wait_for 401 "$second"
[ "$(ask none)" = 401 ] || fail "the last revoked key opened the door"
! grep -q "$secret" "$work/log" || fail "the secret is in the log"
echo "key: ok"
