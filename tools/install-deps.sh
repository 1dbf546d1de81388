#!/bin/sh
# Installs with apt what is missing, and does nothing (fast) when all is there.
#
#   tools/install-deps.sh SET...    sets: build, test, lint, fuzz, bench, neon, package
set -eu

build="make cmake ninja-build gcc libc6-dev pkg-config libevent-dev libssl-dev libcurl4-openssl-dev libcjson-dev
       libsqlite3-dev libyaml-dev libutf8proc-dev libhiredis-dev libjs-chart.js"
test="libcmocka-dev libpcre2-dev sqlite3 redis-server curl ca-certificates procps dpkg-dev file"
lint="clang-format-14 clang-tidy-14 clang-14 libcmocka-dev libpcre2-dev"
fuzz="clang-14 libclang-rt-14-dev"
neon="cmake ninja-build pkg-config gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
[ "$(uname -m)" != aarch64 ] || neon="cmake ninja-build pkg-config gcc libc6-dev libcmocka-dev"

say() { echo "install-deps: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# Node from elsewhere (nodesource, nvm) is as good, and apt's must not replace it.
want_node() {
    if ! have node || ! node -e 'process.exit(parseInt(process.versions.node) >= 18 ? 0 : 1)'; then
        wanted="$wanted nodejs"
    fi
    have npm || wanted="$wanted npm"
}

wanted=""
optional=""
for set in "$@"; do
    case $set in
    build) wanted="$wanted $build" ;;
    lint) wanted="$wanted $lint" ;;
    bench)
        wanted="$wanted wrk curl"
        want_node
        have nginx || [ -x /usr/sbin/nginx ] || wanted="$wanted nginx-light"
        ;;
    fuzz) wanted="$wanted $fuzz" ;;
    neon) wanted="$wanted $neon" ;;
    package) wanted="$wanted dpkg-dev file" ;; # CPack asks both what the program needs
    test)
        wanted="$wanted $test"
        want_node
        # Ubuntu has Chromium only as a snap, which does not run in containers; the browser test skips without it.
        have chromium || have chromium-browser || have google-chrome || optional="chromium"
        ;;
    *)
        say "unknown set \"$set\"; known: build, test, lint, fuzz, bench, neon, package"
        exit 2
        ;;
    esac
done

if ! have dpkg-query || ! have apt-get; then
    say "this is not Debian or Ubuntu: nothing installed. Needed, by Debian's names: $(echo $wanted $optional)"
    exit 0
fi

# shellcheck disable=SC2086
present=" $(dpkg-query -W -f '${db:Status-Status} ${Package} ' $wanted 2>/dev/null || true)"
missing=""
for package in $wanted; do
    case $present in
    *" installed $package "*) ;;
    *) missing="$missing $package" ;;
    esac
done
if [ -n "$optional" ] && [ "$(. /etc/os-release && echo "$ID")" = ubuntu ]; then
    say "no Chromium here and Ubuntu has it only as a snap: the browser test will be skipped"
    optional=""
fi
missing="${missing# }${optional:+ $optional}"
[ -n "$missing" ] || exit 0

root=""
if [ "$(id -u)" -ne 0 ]; then
    if ! have sudo; then
        say "these packages are missing and neither root nor sudo is at hand: $missing"
        say "run this as root, then try again: apt-get install $missing"
        exit 1
    fi
    root="sudo"
fi
nginx_is_new=no
redis_is_new=no
case " $missing " in *" nginx-light "*) nginx_is_new=yes ;; esac
case " $missing " in *" redis-server "*) redis_is_new=yes ;; esac

say "installing: $missing"
apt="$root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300"
$apt update -q >&2
# shellcheck disable=SC2086
$apt install -q -y --no-install-recommends $missing >&2

# The tests start an nginx and a redis of their own; the packages' must not go on serving their ports.
if [ $nginx_is_new = yes ] && [ -d /run/systemd/system ]; then
    $root systemctl disable --now nginx >&2 || true
fi
if [ $redis_is_new = yes ] && [ -d /run/systemd/system ]; then
    $root systemctl disable --now redis-server >&2 || true
fi
