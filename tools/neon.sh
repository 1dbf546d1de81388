#!/bin/sh
# Builds the tests of src/tensor for 64-bit ARM in build-neon/ and runs them: on an ARM machine as they are, on another
# under QEMU, where a core with SDOT and one without are tried. The tests need cmocka for ARM; it comes from this system's
# package sources into build-neon/sysroot/ and nothing of it is installed. PARE_SYSROOT=FOLDER names a folder that has it.
#
#   tools/neon.sh JOBS
set -eu
cd "$(dirname "$0")/.."
jobs=$1
folder=build-neon
sysroot=${PARE_SYSROOT:-$PWD/$folder/sysroot}

say() { echo "neon: $*" >&2; }

# apt as on a machine of the other architecture, with lists and a cache of its own.
fetch_cmocka() {
    apt=$PWD/$folder/apt
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$sysroot"
    : >"$apt/status"
    as_arm="apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root
            -o Debug::NoLocking=1 -o Dir::State::lists=$apt/lists -o Dir::Cache=$apt/cache -o Dir::State::status=$apt/status"
    # shellcheck disable=SC2086
    $as_arm update >&2 || true # another source that has no ARM does not matter
    # shellcheck disable=SC2086
    if ! (cd "$apt" && $as_arm download libcmocka-dev libcmocka0 >&2); then
        say "the package sources of this system have no cmocka for arm64: put its files below a folder as"
        say "usr/include/ and usr/lib/aarch64-linux-gnu/, and run again with PARE_SYSROOT=FOLDER"
        exit 1
    fi
    for package in "$apt"/*.deb; do
        dpkg-deb -x "$package" "$sysroot"
    done
    rm -rf "$apt"
}

# run CORE KERNELS CTEST_OPTIONS...: the log must show that these kernels were among the tested.
run() {
    core=$1
    kernels=$2
    shift 2
    say "core $core"
    QEMU_CPU=$core ctest --test-dir $folder --output-on-failure -j2 "$@"
    if ! grep -q "^has $kernels\$" $folder/Testing/Temporary/LastTest.log; then
        say "the kernels \"$kernels\" were not tested"
        exit 1
    fi
}

tools/install-deps.sh neon
if [ "$(uname -m)" = aarch64 ]; then
    cmake -S . -B $folder -G Ninja -Wno-dev --log-level=WARNING -DPARE_TENSOR_ONLY=ON >/dev/null
    cmake --build $folder -j "$jobs"
    run native neon
    exit 0
fi

[ -e "$sysroot/usr/lib/aarch64-linux-gnu/libcmocka.so" ] || fetch_cmocka
cmake -S . -B $folder -G Ninja -Wno-dev --log-level=WARNING --toolchain cmake/aarch64.cmake -DPARE_TENSOR_ONLY=ON \
    -DPARE_SYSROOT="$sysroot" >/dev/null
cmake --build $folder -j "$jobs"
run cortex-a72 neon -R tensor/test_kernels
run max dotprod
