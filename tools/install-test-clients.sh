#!/bin/sh
# Fetches the npm packages of tests/clients when they are missing or older than its lock file. The browser is the
# system's, so Playwright fetches none.
set -eu
cd "$(dirname "$0")/../tests/clients"
[ -f package.json ] || exit 0
if [ node_modules/.package-lock.json -nt package-lock.json ]; then
    exit 0
fi
PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --no-audit --no-fund
touch node_modules/.package-lock.json
