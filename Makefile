# Clinch. `make demo` and `make test` need Debian 12, rustup and root; they install the rest themselves.

.POSIX:
.PHONY: help demo test build

# Arguments for `clinch demo`, e.g. make demo CLINCH_DEMO_ARGS=--once
CLINCH_DEMO_ARGS =

help:
	@echo 'make demo    build clinch and watch it terminate TLS and staple: own CA, responder and backend'
	@echo '             (CLINCH_DEMO_ARGS=--once performs the handshakes itself and ends)'
	@echo 'make test    every check: format, lints, unit tests, end-to-end tests with real peers'
	@echo 'make build   the release binary, target/release/clinch'

demo: build
	@tests/bootstrap.sh demo
	@$${CARGO_TARGET_DIR:-target}/release/clinch demo $(CLINCH_DEMO_ARGS)

test:
	@tests/bootstrap.sh build demo test
	@tests/run.sh

build:
	@tests/bootstrap.sh build
	cargo build --release --locked -p clinch
