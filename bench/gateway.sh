#!/bin/sh
# The gateway against nginx, alternating in one run: requests a second, p50 and p99 in milliseconds (wrk, 32 connections).
#   constant  nginx answers a fixed body          hit    pare answers from its cache
#   proxy     nginx proxy_pass to a fixed nginx   relay  pare relays each different request to the same upstream
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
        location / { return 200 '{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"up","choices":[{"index":0,"message":{"role":"assistant","content":"Your order left our house this morning and arrives tomorrow."},"finish_reason":"stop"}],"usage":{"prompt_tokens":31,"completion_tokens":12,"total_tokens":43}}'; }
    }
    server {
        listen 127.0.0.1:9102 reuseport;
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
backends: {fixed: {base_url: "http://127.0.0.1:9101/v1"}}
models: {up: {backend: fixed, price: gpt-4o-mini}}
EOF
"$pare" serve --config "$work/pare.yaml" &
pids="$pids $!"
for i in 1 2 3 4 5 6 7 8 9 10; do
    curl -sf http://127.0.0.1:9103/health >/dev/null 2>&1 && break
    sleep 0.2
done

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
    r=$((r + 1))
done

median() { # name column
    awk -v n="$1" -v c="$2" '$1 == n { print $c }' "$work/figures" | sort -g |
        awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
echo "gateway: medians of $rounds alternating runs of $seconds s, wrk with 2 threads and 32 connections, $(nproc) cores"
printf '%-10s %12s %9s %9s %8s\n' what requests/s p50_ms p99_ms errors
for n in constant hit proxy relay; do
    printf '%-10s %12s %9s %9s %8s\n' $n "$(median $n 2)" "$(median $n 3)" "$(median $n 4)" "$(median $n 5)"
done
ratio() { # by round, so that drift of the machine cancels out
    awk -v a="$1" -v b="$2" '$1 == a { x[++i] = $2 } $1 == b { y[++j] = $2 } END { for (k = 1; k <= i; k++) print x[k] / y[k] }' \
        "$work/figures" | sort -g | awk '{ v[NR] = $1 } END { printf "%.2f", v[int((NR + 1) / 2)] }'
}
echo "hit / constant: $(ratio hit constant)   relay / proxy: $(ratio relay proxy)"
