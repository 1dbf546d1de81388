# A thin front for CMake and Ninja. `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help build run serve test bench install package lint asan tsan fuzz soak faults neon clean

PREFIX        ?= /usr/local
DESTDIR       ?=
JOBS          ?= $(shell nproc)
FUZZ_SECONDS  ?= 60
SOAK_SECONDS  ?= 600
FAULT_SECONDS ?= 600

CONFIGURE = cmake -S . -G Ninja -Wno-dev --log-level=WARNING
CTEST     = ctest --output-on-failure -j2

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

build: ## install what the build needs (apt), build the program: build/pare
	@tools/install-deps.sh build
	@$(CONFIGURE) -B build >/dev/null
	@cmake --build build -j $(JOBS) --target pare

run: build ## build, serve the bundled model on 127.0.0.1:7273, replay the examples, show what was saved
	@exec tools/run-demo.sh

serve: build ## build and serve the bundled model on 127.0.0.1:7273
	@exec build/pare serve

test: ## install what the tests need (apt, npm), build and run all tests
	@tools/install-deps.sh build test
	@tools/install-test-clients.sh
	@$(CONFIGURE) -B build >/dev/null
	@cmake --build build -j $(JOBS)
	@$(CTEST) --test-dir build

bench: build ## build and measure; the figures of docs/benchmarks.md
	@tools/install-deps.sh bench
	@exec bench/run.sh

install: build ## install to PREFIX (/usr/local) below DESTDIR: program, libpare, header, pkg-config file, man page
	@cmake --build build -j $(JOBS) --target libpare_static libpare_shared
	@DESTDIR='$(DESTDIR)' cmake --install build --prefix '$(PREFIX)'

package: build ## a Debian package of the program and its service: build/pare_*.deb
	@tools/install-deps.sh package
	@cd build && cpack -G DEB

lint: ## clang-format, clang-tidy, clang -Wall -Wextra -Werror, floors, file lengths
	@tools/install-deps.sh build lint
	@tools/lint.sh $(JOBS)

asan: ## all tests under AddressSanitizer and UndefinedBehaviorSanitizer (build-asan/)
	@tools/install-deps.sh build test
	@tools/install-test-clients.sh
	@$(CONFIGURE) -B build-asan -DPARE_ASAN=ON >/dev/null
	@cmake --build build-asan -j $(JOBS)
	@$(CTEST) --test-dir build-asan

tsan: ## all tests under ThreadSanitizer (build-tsan/)
	@tools/install-deps.sh build test
	@tools/install-test-clients.sh
	@$(CONFIGURE) -B build-tsan -DPARE_TSAN=ON >/dev/null
	@cmake --build build-tsan -j $(JOBS)
	@$(CTEST) --test-dir build-tsan

fuzz: ## each fuzz target for FUZZ_SECONDS (60) under sanitizers (build-fuzz/)
	@tools/install-deps.sh build fuzz
	@$(CONFIGURE) -B build-fuzz -DPARE_FUZZ=ON -DCMAKE_C_COMPILER=clang-14 >/dev/null
	@tools/fuzz.sh build-fuzz $(FUZZ_SECONDS) $(JOBS)

soak: ## hits, misses, failures and aborts at once for SOAK_SECONDS (600), half of it under ASan, half under TSan
	@tools/install-deps.sh build test
	@$(CONFIGURE) -B build-asan -DPARE_ASAN=ON >/dev/null
	@cmake --build build-asan -j $(JOBS) --target serve_test_soak
	@PARE_SOAK_SECONDS=$$(($(SOAK_SECONDS) / 2)) ASAN_OPTIONS=quarantine_size_mb=16 build-asan/serve_test_soak
	@$(CONFIGURE) -B build-tsan -DPARE_TSAN=ON >/dev/null
	@cmake --build build-tsan -j $(JOBS) --target serve_test_soak
	@PARE_SOAK_SECONDS=$$(($(SOAK_SECONDS) / 2)) build-tsan/serve_test_soak

faults: ## providers that fail at random behind retries and fallbacks for FAULT_SECONDS (600): every request accounted once
	@tools/install-deps.sh build test
	@$(CONFIGURE) -B build >/dev/null
	@cmake --build build -j $(JOBS) --target serve_test_faults
	@PARE_FAULT_SECONDS=$(FAULT_SECONDS) build/serve_test_faults

neon: ## the tests of src/tensor for 64-bit ARM, built across and run under QEMU, or as they are on ARM (build-neon/)
	@tools/neon.sh $(JOBS)

clean: ## remove all build folders
	rm -rf build build-asan build-tsan build-clang build-fuzz build-neon
