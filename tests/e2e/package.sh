#!/bin/sh
# The Debian package: what is in it runs from where it is unpacked, needs what it says, and its service names what is there.
# usage: package.sh BUILD_DIR
set -eu
build=$1
command -v dpkg-shlibdeps >/dev/null || { echo "package: dpkg-dev is not installed, skipped"; exit 77; }
work=$(mktemp -d)
trap 'kill $served 2>/dev/null || true; rm -rf "$work"' EXIT
served=
(cd "$build" && cpack -G DEB -B "$work/out" >"$work/log" 2>&1) || { cat "$work/log"; exit 1; }
deb=$(echo "$work"/out/pare_*.deb)
[ "$(dpkg-deb -f "$deb" Package)" = pare ]
dpkg-deb -f "$deb" Depends | grep -q libcurl4
dpkg-deb -f "$deb" Depends | grep -q ca-certificates
dpkg-deb -x "$deb" "$work/root"
"$work/root/usr/bin/pare" --version | grep -q '^pare '
unit=$work/root/usr/lib/systemd/system/pare.service
for path in $(sed -n 's/^ExecStart=\([^ ]*\).*--config \([^ ]*\).*/\1 \2/p' "$unit"); do
    [ -e "$work/root$path" ] || { echo "package: the service names $path, which is not in the package"; exit 1; }
done
if command -v systemd-analyze >/dev/null; then # words that systemd does not know it ignores: they would protect nobody
    if systemd-analyze verify --man=no "$unit" 2>&1 | grep -E 'Unknown|Failed to parse|Invalid|not supported'; then
        exit 1
    fi
fi
# With the settings of the package it serves.
"$work/root/usr/bin/pare" serve --config "$work/root/etc/pare/pare.yaml" --listen 127.0.0.1:0 --data "$work/data" \
    2>"$work/said" &
served=$!
for _ in $(seq 100); do
    port=$(sed -n 's/.*127\.0\.0\.1:\([0-9]*\)\/.*/\1/p' "$work/said")
    [ -z "$port" ] || break
    sleep 0.1
done
curl -sf "http://127.0.0.1:$port/health" | grep -q '"status":"ok"' || { cat "$work/said"; exit 1; }
