#!/bin/sh
# The gateway against nginx, alternating in one run: requests a second, p50 and p99 in milliseconds (wrk, 32 connections).
#   constant  nginx answers a fixed body          hit    pare answers from its cache
#   proxy     nginx proxy_pass to a fixed nginx   relay  pare relays each different request to the same upstream
#   portkey   the Portkey gateway (npm) relays to the same upstream; left out where npm cannot fetch it
# Then: latency added at 5000 requests a second and to a prompt of 450 KB, 2000 streams at once, memory after 10,000 and
# after 1,000,000 requests, the time to start, the size of the program.
# usage: bench/gateway.sh [ROUNDS] [SECONDS]
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-5}
seconds=${2:-5}
pare=${PARE:-build/pare}
for tool in wrk nginx curl; do
    command -v $tool >/dev/null || { echo "bench: $tool is missing (apt-get install $tool)" >&2; exit 1; }
done
work=$(mktemp -d)
pids=
cleanup() {
    for p in $pids; do kill "$p" 2>/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT

cat >"$work/nginx.conf" <<EOF
worker_processes 2;
daemon off;
pid $work/nginx.pid;
error_log $work/error.log;
events { worker_connections 1024; }
http {
    access_log off;
    client_body_temp_path $work/body;
    proxy_temp_path $work/proxy;
    fastcgi_temp_path $work/f; uwsgi_temp_path $work/u; scgi_temp_path $work/s;
    keepalive_requests 1000000000;
    upstream fixed { server 127.0.0.1:9101; keepalive 64; keepalive_requests 1000000000; }
    server {
        listen 127.0.0.1:9101 reuseport;
        default_type application/json;
        client_max_body_size 32m;
        client_body_buffer_size 1m;
        location / { return 200 '{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"up","choices":[{"index":0,"message":{"role":"assistant","content":"Your order left our house this morning and arrives tomorrow."},"finish_reason":"stop"}],"usage":{"prompt_tokens":31,"completion_tokens":12,"total_tokens":43}}'; }
    }
    server {
        listen 127.0.0.1:9102 reuseport;
        client_max_body_size 32m;
        client_body_buffer_size 1m;
        location / { proxy_pass http://fixed; proxy_http_version 1.1; proxy_set_header Connection ""; }
    }
}
EOF
nginx -p "$work" -c "$work/nginx.conf" 2>/dev/null &
pids="$pids $!"
cat >"$work/pare.yaml" <<EOF
listen: 127.0.0.1:9103
data: $work/data
log: {level: warn}
keys: [{name: bench, key: bench-secret, admin: true, money_day: 100000, tokens_minute: 1000000000000, requests_minute: 100000000}]
backends:
  fixed: {base_url: "http://127.0.0.1:9101/v1"}
  spout: {base_url: "http://127.0.0.1:9104/v1"}
models:
  up: {backend: fixed, price: gpt-4o-mini}
  stream: {backend: spout, price: gpt-4o-mini}
EOF
served=
start() { # anew, with nothing in its caches
    [ -z "$served" ] || { kill "$served" && wait "$served" 2>/dev/null || true; }
    rm -rf "$work/data"
    "$pare" serve --config "$work/pare.yaml" &
    served=$!
    pids="$pids $served"
    until curl -sf http://127.0.0.1:9103/health >/dev/null 2>&1; do
        kill -0 "$served" || exit 1
    done
}
start

# The Portkey gateway, if npm has it. Its upstream is named by a header.
portkey=no
cache=${BENCH_DIR:-${TMPDIR:-/tmp}/pare-bench}/portkey
if command -v npm >/dev/null; then
    mkdir -p "$cache"
    [ -d "$cache/node_modules/@portkey-ai/gateway" ] ||
        npm install --prefix "$cache" --no-audit --no-fund --loglevel=error @portkey-ai/gateway@1.15.2 >"$cache/npm.log" 2>&1 ||
        echo "bench: the Portkey gateway could not be installed (see $cache/npm.log)" >&2
    server=$cache/node_modules/@portkey-ai/gateway/build/start-server.js
    if [ -f "$server" ]; then
        NODE_ENV=production node "$server" --port=9105 --headless >"$work/portkey.log" 2>&1 &
        pids="$pids $!"
        sleep 3
        portkey=yes
    fi
fi

one() { # name port same|new
    printf '%s ' "$1" >>"$work/figures"
    wrk -t2 -c32 -d"${seconds}s" -s bench/post.lua "http://127.0.0.1:$2/v1/chat/completions" -- "$3" |
        sed -n 's/^FIGURES //p' >>"$work/figures"
}
r=1
while [ "$r" -le "$rounds" ]; do
    one constant 9101 same
    one hit 9103 same
    one proxy 9102 new
    one relay 9103 new
    [ $portkey = no ] || one portkey 9105 new
    r=$((r + 1))
done

median() { # name column
    awk -v n="$1" -v c="$2" '$1 == n { print $c }' "$work/figures" | sort -g |
        awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
echo "gateway: medians of $rounds alternating runs of $seconds s, wrk with 2 threads and 32 connections, $(nproc) cores"
printf '%-10s %12s %9s %9s %8s\n' what requests/s p50_ms p99_ms errors
for n in constant hit proxy relay portkey; do
    [ $n != portkey ] || [ $portkey = yes ] || continue
    printf '%-10s %12s %9s %9s %8s\n' $n "$(median $n 2)" "$(median $n 3)" "$(median $n 4)" "$(median $n 5)"
done
ratio() { # by round, so that drift of the machine cancels out
    awk -v a="$1" -v b="$2" '$1 == a { x[++i] = $2 } $1 == b { y[++j] = $2 } END { for (k = 1; k <= i; k++) print x[k] / y[k] }' \
        "$work/figures" | sort -g | awk '{ v[NR] = $1 } END { printf "%.2f", v[int((NR + 1) / 2)] }'
}
echo "hit / constant: $(ratio hit constant)   relay / proxy: $(ratio relay proxy)"
[ $portkey = no ] || echo "relay / portkey: $(ratio relay portkey)"

# ---- latency ----

cc -std=c17 -D_GNU_SOURCE -O2 -o "$work/load" bench/load.c
message() { # kilobytes
    printf '{"model":"up","max_tokens":64,"messages":[{"role":"user","content":"'
    awk -v n="$1" 'BEGIN { for (i = 0; i < n * 1024 / 32; i++) printf "Where is order %06d in the house? ", i }' | head -c $(($1 * 1024))
    printf '"}]}'
}
message 1 >"$work/small.json"
message 450 >"$work/large.json"
printf '{"model":"stream","stream":true,"messages":[{"role":"user","content":"Tell me."}]}' >"$work/stream.json"
path=/v1/chat/completions

# Straight to the upstream, through nginx and through pare, alternating: the difference is what each adds.
added() { # name body rate connections
    : >"$work/late"
    for k in 1 2 3 4 5; do
        for p in 9101 9102 9103; do
            printf '%s ' $p >>"$work/late"
            "$work/load" rate $p $path "$work/$2" "$3" "$seconds" "$4" >>"$work/late"
        done
    done
    for p in 6 8; do
        awk -v p=$p -v n="$1" -v q=$([ $p = 6 ] && echo p50 || echo p99) '
            function median(v, n,   i, j, t) {
                for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j - 1] > v[j]; j--) { t = v[j]; v[j] = v[j - 1]; v[j - 1] = t }
                return v[int((n + 1) / 2)]
            }
            $1 == 9101 { a[++k] = $p } $1 == 9102 { b[k] = $p - a[k] } $1 == 9103 { c[k] = $p - a[k] }
            END { s = median(a, k); printf "%s: %s %.3f ms straight, %.3f ms added by nginx, %.3f ms added by pare\n", n, q, s,
                  median(b, k), median(c, k) }' "$work/late"
    done
}
added "5000 requests/s" small.json 5000 64
added "450 KB prompt" large.json 20 4

# ---- streams ----

start
"$work/load" serve 9104 20 30 &
pids="$pids $!"
sleep 0.5
rss() { awk '/^VmRSS/ { printf "%.1f", $2 / 1024 }' "/proc/$served/status"; }
(sleep 15 && rss >"$work/rss_streams") &
streams() { # name port seconds
    "$work/load" streams "$2" $path "$work/stream.json" 2000 "$3" |
        awk -v n="$1" '{ printf "2000 streams of 20 chunks/s%s: %s chunks, later than written by p50 %s, p99 %s, p999 %s, at most %s ms, errors %s\n", n, $3, $5, $7, $9, $11, $13 }'
}
streams "" 9103 25
echo "memory with 2000 streams: $(cat "$work/rss_streams") MiB"
streams ", straight (what the load itself is late by)" 9104 10

# ---- weight ----

# With a cache that is full before the first reading: what grows after that is no cache.
echo "cache: {size: 4MiB}" >>"$work/pare.yaml"
kill "$served" && wait "$served" 2>/dev/null || true
served=
began=$(date +%s%N)
start
ended=$(date +%s%N)
echo "start to ready: $(((ended - began) / 1000000)) ms, curl included"
requests() { # how many
    done=0
    while [ $done -lt "$1" ]; do
        wrk -t2 -c32 -d2s -s bench/post.lua http://127.0.0.1:9103/v1/chat/completions -- new >/dev/null
        done=$(curl -sf -H 'Authorization: Bearer bench-secret' http://127.0.0.1:9103/metrics |
            awk '/^pare_requests_total/ { n += $2 } END { printf "%d", n }')
    done
}
requests 10000
first=$(rss)
requests 1000000
echo "memory after 10,000 requests: $first MiB; after $done: $(rss) MiB"
size=$(wc -c <"$pare")
model=$(wc -c <models/storyteller.gguf)
echo "program: $(awk -v n="$size" -v m="$model" 'BEGIN { printf "%.1f MB, %.1f MB without the bundled model", n / 1e6, (n - m) / 1e6 }')"
