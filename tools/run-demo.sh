#!/bin/sh
# What `make run` does: serves the bundled model, replays the examples against it, shows what was saved and stays up.
#
#   PARE_LISTEN=127.0.0.1:8000 make run    another address
#   PARE=other/pare tools/run-demo.sh      another program
set -eu
cd "$(dirname "$0")/.."
pare=${PARE:-build/pare}
listen=${PARE_LISTEN:-127.0.0.1:7273}
server=""
log=$(mktemp)

say() { echo "run-demo: $*" >&2; }

# The server finishes what runs; a second Ctrl-C ends it at once.
end() {
    trap 'kill -KILL "$server" 2>/dev/null || true' INT TERM
    if [ -n "$server" ] && kill -TERM "$server" 2>/dev/null; then
        wait "$server" || true
    fi
    rm -f "$log"
}
trap 'end; exit 0' INT TERM
trap 'end' EXIT

if [ ! -x "$pare" ]; then
    say "$pare is missing; run make build first."
    exit 1
fi

"$pare" serve --listen "$listen" 2>"$log" &
server=$!
url=""
tries=0
while [ -z "$url" ]; do
    if ! kill -0 "$server" 2>/dev/null; then
        cat "$log" >&2
        server=""
        say "the server did not start. If the port is taken: PARE_LISTEN=127.0.0.1:8000 make run"
        exit 1
    fi
    if [ "$tries" -ge 600 ]; then
        cat "$log" >&2
        say "the server is not ready after a minute."
        exit 1
    fi
    url=$(sed -n 's/.*dashboard at \(http:[^ ]*\)\/$/\1/p' "$log")
    [ -n "$url" ] || sleep 0.1
    tries=$((tries + 1))
done

"$pare" replay examples/requests.jsonl --to "$url" --concurrency 4 &
replay=$!
trap 'kill "$replay" 2>/dev/null || true; end; exit 0' INT TERM
wait "$replay" || say "not every request was answered (see above); the server stays up all the same."
trap 'end; exit 0' INT TERM

printf '\nCtrl-C ends the server. Ask it yourself:\n\n'
printf "  curl %s/v1/chat/completions -H 'Content-Type: application/json' \\\\\n" "$url"
printf "    -d '{\"model\": \"storyteller\", \"messages\": [{\"role\": \"user\", \"content\": \"Tell me about the sea.\"}]}'\n\n"
printf 'Dashboard: %s/\n' "$url"

code=0
wait "$server" || code=$?
server=""
[ "$code" -eq 0 ] || cat "$log" >&2
exit "$code"
