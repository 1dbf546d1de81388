#!/bin/sh
# All figures of docs/benchmarks.md, on this machine. usage: bench/run.sh [gateway|engine]
set -eu
cd "$(dirname "$0")/.."
what=${1:-all}
[ "$what" = engine ] || sh bench/gateway.sh
[ "$what" = gateway ] || sh bench/engine.sh
