# Clinch. `make demo` and `make test` need Debian 12, rustup and root; they install the rest themselves.

.POSIX:
.PHONY: ebpf ebpf-check ebpf-kernels ktls-kernels ktls-cost steering
.PHONY: help demo test build matrix reliability corpora fuzz

# Arguments for `clinch demo`, e.g. make demo CLINCH_DEMO_ARGS=--once
CLINCH_DEMO_ARGS =
# Arguments for measurements, e.g. make bench-compare BASE=HEAD~1 BENCH_ARGS='--rounds 3'
BENCH_ARGS =
BASE = HEAD

# Arguments for the matrix, e.g. MATRIX_ARGS='--server clinch'
MATRIX_ARGS =

# Seconds for each fuzz target, and which of them (all).
FUZZ_SECONDS = 1200
FUZZ_TARGETS =

help:
	@echo 'make demo    build clinch and watch it terminate TLS and staple: own CA, responder and backend'
	@echo '             (CLINCH_DEMO_ARGS=--once performs the handshakes itself and ends)'
	@echo 'make test    every check: format, lints, unit tests, end-to-end tests with real peers'
	@echo 'make build   the release binary, target/release/clinch'
	@echo 'make ebpf    rebuild the steering programs (ebpf-check: compare them with those kept;'
	@echo '             ebpf-kernels: run tests of steering on kernels 6.1 and 6.12 in QEMU)'
	@echo 'make ktls-kernels'
	@echo '             the tests of kTLS on kernels that have it: 6.1, 6.12 and of Debian testing'
	@echo '             (ktls-cost: instructions a byte and system calls a MiB, with kTLS and without)'
	@echo 'make steering'
	@echo '             the long form of the steering tests, about 10 minutes'
	@echo 'make matrix  what clients see of clinch, nginx, HAProxy, Apache and Hitch when a responder'
	@echo '             misbehaves; writes docs/MISBEHAVIOUR.md in about 20 minutes'
	@echo 'make reliability'
	@echo '             the long form of the reliability tests, about 5 minutes'
	@echo 'make corpora clinch ocsp verify against the responses that OpenSSL keeps for its verifier'
	@echo 'make fuzz    each parser of outside bytes under libFuzzer, 20 minutes each on one core'
	@echo '             (FUZZ_SECONDS=60 FUZZ_TARGETS="ocsp crl" for less)'
	@echo 'make image   the bootable appliance: signed, UEFI and BIOS disks, update, PXE (target/image)'
	@echo '             (image-repro: the same bytes twice; image-test: boots it in QEMU)'
	@echo 'make bench   what visitors wait with a staple, without, and with client-side OCSP, and the CPU that'
	@echo '             a staple costs: five minutes, recorded under bench/results; needs two cores with'
	@echo '             nothing else to do (bench-peers: beside nginx, HAProxy, Hitch and others;'
	@echo '             bench-scale: up to a million sites and 50,000 connections;'
	@echo '             bench-connections: 50,000 in an emulated machine, where this one may not open them;'
	@echo '             bench-newest: fetch Debian 13 for its newer peers, once;'
	@echo '             bench-all: every scenario; bench-micro: the parts by themselves;'
	@echo '             bench-compare BASE=REV: is the working tree dearer than that revision? exit code 3 if so;'
	@echo '             bench-schedule: a million certificates in the scheduler;'
	@echo '             bench-quick: whether the measurements work, in seconds, without figures)'

demo:
	@tests/bootstrap.sh build demo
	cargo build --profile quick --locked -p clinch
	@$${CARGO_TARGET_DIR:-target}/quick/clinch demo $(CLINCH_DEMO_ARGS)

test:
	@tests/bootstrap.sh build demo test image-quick
	@tests/run.sh

ebpf:
	@tests/bootstrap.sh build
	ebpf/build.sh

ebpf-check:
	@tests/bootstrap.sh build
	ebpf/build.sh --check

ebpf-kernels:
	@tests/bootstrap.sh build test ebpf-kernels
	cargo build --profile quick --locked -p clinch
	tests/kernels/run.sh steering $${CARGO_TARGET_DIR:-target}/quick/clinch "$$(cargo test --locked -p clinch-tests --test steering --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))$$/\1/p')"

ktls-kernels:
	@tests/bootstrap.sh build test ebpf-kernels
	cargo build --profile quick --locked -p clinch
	tests/kernels/run.sh ktls $${CARGO_TARGET_DIR:-target}/quick/clinch "$$(cargo test --locked -p clinch-tests --test ktls --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))$$/\1/p')" 6.1 6.12 testing

ktls-cost:
	@tests/bootstrap.sh build test ebpf-kernels
	cargo build --release --locked -p clinch
	cargo build --locked -p clinch-tests --bin ktls-cost
	tests/kernels/run.sh ktls-cost $${CARGO_TARGET_DIR:-target}/release/clinch $${CARGO_TARGET_DIR:-target}/debug/ktls-cost 6.12

steering:
	@tests/bootstrap.sh build test
	cargo build --release --locked -p clinch
	CLINCH_STEERING=full CLINCH_BIN=$$(realpath $${CARGO_TARGET_DIR:-target}/release/clinch) \
	    cargo test --locked -p clinch-tests --test steering -- --nocapture --test-threads 1

build:
	@tests/bootstrap.sh build
	cargo build --release --locked -p clinch

matrix:
	@tests/bootstrap.sh build demo matrix
	cargo build --locked -p clinch -p clinch-tests --bins
	$${CARGO_TARGET_DIR:-target}/debug/clinch-matrix $(MATRIX_ARGS)

reliability:
	@tests/bootstrap.sh build test
	CLINCH_RELIABILITY=full cargo test --locked -p clinch-tests --test reliability -- --nocapture

corpora:
	@tests/bootstrap.sh build demo
	cargo build --locked -p clinch
	tests/corpora.sh $${CARGO_TARGET_DIR:-target}/debug/clinch

fuzz:
	@tests/bootstrap.sh build fuzz
	tests/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

.PHONY: bench bench-all bench-connections bench-newest bench-peers bench-scale bench-quick bench-micro bench-schedule bench-compare bench-build
bench: bench-build
	$${CARGO_TARGET_DIR:-target}/release/clinch-bench $(BENCH_ARGS) headline
	$${CARGO_TARGET_DIR:-target}/release/clinch-bench $(BENCH_ARGS) staple

bench-all: bench-build
	$${CARGO_TARGET_DIR:-target}/release/clinch-bench $(BENCH_ARGS) all

bench-peers: bench-build
	$${CARGO_TARGET_DIR:-target}/release/clinch-bench $(BENCH_ARGS) with-peers

# A million sites take 4 GB of memory, 50,000 connections root for their descriptors.
bench-scale: bench-build
	$${CARGO_TARGET_DIR:-target}/release/clinch-bench $(BENCH_ARGS) scale

# Memory alone: an emulated machine's times mean nothing, but root may raise its limit of descriptors.
bench-connections:
	@tests/bootstrap.sh build bench ebpf-kernels
	cargo build --profile quick --locked -p clinch -p clinch-bench
	tests/kernels/run.sh connections $${CARGO_TARGET_DIR:-target}/quick/clinch $${CARGO_TARGET_DIR:-target}/quick/clinch-bench 6.12

# Debian 13 in a directory, once, for bench-peers to compare with its newer programs.
bench-newest:
	bench/trixie.sh

bench-quick: bench-build
	$${CARGO_TARGET_DIR:-target}/release/clinch-bench --quick all

bench-micro: bench-build
	@rm -rf $${CARGO_TARGET_DIR:-target}/criterion
	cargo bench --locked -p clinch-bench --bench parts
	$${CARGO_TARGET_DIR:-target}/release/clinch-bench parts $${CARGO_TARGET_DIR:-target}/criterion

bench-schedule:
	@tests/bootstrap.sh build
	CLINCH_SCALE=full cargo test --locked -p clinch --test scale -- --nocapture

bench-compare:
	@tests/bootstrap.sh build
	@bench/compare.sh "$(BASE)" $(BENCH_ARGS)

bench-build:
	@tests/bootstrap.sh build bench
	cargo build --release --locked -p clinch -p clinch-bench

.PHONY: image image-repro image-test
image:
	@tests/bootstrap.sh build image
	appliance-image/build.sh

image-repro: image
	appliance-image/repro.sh

image-test: image
	@tests/bootstrap.sh image-test
	appliance-image/test.sh
