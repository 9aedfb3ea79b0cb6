# `make run` starts a relay on this machine; `make test` installs what the tests need and runs all of them.

CARGO ?= cargo
ADDRESS ?= 127.0.0.1:8080

.PHONY: run test lint bench install-test-tools help

help:
	@echo "make run    build the relay and start it with the embedded store on http://$(ADDRESS)"
	@echo "make test   install what the tests need and run all of them"
	@echo "make lint   formatting, clippy, docs, dependency rules"
	@echo "make bench  the hot path and the cost of an idle socket, measured"

run:
	$(CARGO) build --release --locked
	@echo
	@echo "Starting the relay with the embedded store (no Redis needed). Try it from another terminal:"
	@echo
	@echo "  curl -s -X POST http://$(ADDRESS)/api/sessions -d '{\"metadata\":{\"tutorial\":\"react-basics\"}}'"
	@echo "  websocat 'ws://$(ADDRESS)/ws?session=<the id from above>'     # any WebSocket client, twice"
	@echo
	@echo "Or open http://$(ADDRESS)/ in a browser. Ctrl-C drains and stops it."
	@echo
	./target/release/gitorial-relay serve --listen $(ADDRESS)

test: install-test-tools
	RUST_BACKTRACE=0 $(CARGO) test --locked --lib --bins --tests --examples
	$(CARGO) test --locked --doc

# Redis for the tests that run over it: Debian's package, unless one is named or installed.
install-test-tools:
	@if [ -n "$$RELAY_TEST_REDIS_URL" ] || command -v redis-server >/dev/null; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
	  echo "The tests need redis-server: install it, or set RELAY_TEST_REDIS_URL." >&2; exit 1; fi; \
	sudo=""; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	echo "installing redis-server"; \
	$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq redis-server >/dev/null

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps
	@if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; \
	else echo "cargo-deny is not installed (cargo install cargo-deny): dependency rules not checked"; fi

bench:
	$(CARGO) bench --locked --bench hot_path
	ulimit -n 20000 && $(CARGO) bench --locked --bench idle_sockets -- 10000
