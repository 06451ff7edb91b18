# The commands that people and CI use. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
# A target that cannot be done here adds its name to a file; `make test` says at its end what stands there.
skip = echo 'make $@: SKIPPED, for the reason above.'; mkdir -p target; echo $@ >>target/skipped; exit 0
SKIPPED = $$([ ! -s target/skipped ] || echo ", but this was skipped: $$(paste -sd, target/skipped)")
# The version that a rolling upgrade starts from: the last that was delivered before the schema changed.
PREVIOUS ?= 905996bb914946fc9c67580f48af12a0287b963b
.PHONY: help run test faults bench bench-hold check fmt lint deny docs walkthrough test-api test-chart fuzz test-kernel setup clean-data deb test-package test-image test-upgrade test-monitoring test-console

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## install what is missing, build, make real patches and start a server (LISTEN=ADDR:PORT, DATA_DIR=DIR)
	@LISTEN='$(LISTEN)' DATA_DIR='$(DATA_DIR)' exec tests/run.sh

test: ## install what is missing and run all tests, then walkthroughs, the API, the chart, the package, monitoring, the console in a browser and the real kernel
	@tests/setup.sh test
	@mkdir -p target && : >target/skipped
	@# nextest runs each test in a process of its own; without it cargo's own runner does.
	@if cargo nextest --version >/dev/null 2>&1; then run=(cargo nextest run); else run=(cargo test); fi; \
	  set -x; exec tests/services.sh "$${run[@]}" --locked
	@$(MAKE) --no-print-directory walkthrough
	@$(MAKE) --no-print-directory test-api
	@$(MAKE) --no-print-directory test-chart
	@$(MAKE) --no-print-directory test-package
	@$(MAKE) --no-print-directory test-monitoring
	@$(MAKE) --no-print-directory test-console
	@$(MAKE) --no-print-directory test-kernel
	@echo "make test: all tests passed$(SKIPPED)."

faults: ## kill, stop, fill and corrupt everything many times over; a table of what was lost (RUNS=20 PAUSE=60)
	@tests/setup.sh test
	@RUNS='$(RUNS)' PAUSE='$(PAUSE)' exec tests/faults.sh

bench: ## measure speed against yardsticks in the same run (ROUNDS=5 SECONDS=4 ONLY=GROUP)
	@tests/setup.sh bench
	@ROUNDS='$(ROUNDS)' SECONDS_EACH='$(SECONDS)' ONLY='$(ONLY)' exec tests/services.sh cargo bench --locked --bench figures

bench-hold: ## hold 2,800 check-ins per second with 1,000,000 machines, and count what was lost (DURATION=10m)
	@tests/setup.sh bench
	@DURATION='$(DURATION)' ONLY=hold exec tests/services.sh cargo bench --locked --bench figures

check: setup lint deny test ## everything that CI asks: format, lints, licences, tests
	@echo "make check: everything passed$(SKIPPED)."

fmt: ## format the code
	cargo fmt

lint: ## formatting and clippy, with warnings as errors
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

deny: ## licences, banned crates and sources of the dependencies
	target/tools/bin/cargo-deny --locked check --hide-inclusion-graph licenses bans sources

docs: ## write the reference pages again that are made from the code
	@tests/setup.sh run
	UPDATE_DOCS=1 cargo test --locked --test it -- is_current

walkthrough: ## the main job from bundle to machine, the same across an air gap and through a chain of servers, rollouts, and a restore, told step by step
	cargo build --locked --bins
	@LIVEPATCH_BIN_DIR=target/debug tests/walkthrough.sh
	@LIVEPATCH_BIN_DIR=target/debug tests/walkthrough-airgap.sh
	@LIVEPATCH_BIN_DIR=target/debug tests/walkthrough-chain.sh
	@LIVEPATCH_BIN_DIR=target/debug tests/walkthrough-rollout.sh
	@LIVEPATCH_BIN_DIR=target/debug tests/backup.sh

test-api: ## the API against its own OpenAPI document, with schemathesis (SECONDS=75 SEED=20261123)
	@tests/setup.sh test
	cargo build --locked --bins
	@LIVEPATCH_BIN_DIR=target/debug tests/schemathesis.sh $(SECONDS) $(SEED)

test-chart: ## the Helm chart: what it renders, against Kubernetes' schemas and the server, and what it refuses
	@tests/setup.sh test
	cargo build --locked --bin livepatch-server
	@LIVEPATCH_BIN_DIR=target/debug tests/chart.sh

test-monitoring: ## metrics, rules, alerts and dashboards on a real Prometheus
	@tests/setup.sh test
	cargo build --locked --bins
	@LIVEPATCH_BIN_DIR=target/debug tests/monitoring.sh

fuzz: ## every parser on random input for a while each, then the API with another seed (SECONDS=20 each)
	@tests/setup.sh test
	@tests/fuzz.sh $(or $(SECONDS),20)
	cargo build --locked --bins
	@LIVEPATCH_BIN_DIR=target/debug tests/schemathesis.sh 180 $$RANDOM

test-upgrade: ## a rolling upgrade from another version of this repository, which is built first (PREVIOUS=COMMIT)
	@tests/setup.sh test
	@set -e; rm -rf target/previous/src; git worktree prune; git worktree add --quiet --detach target/previous/src $(PREVIOUS); \
	  trap 'git worktree remove --force target/previous/src' EXIT; \
	  (cd target/previous/src && CARGO_TARGET_DIR=$(CURDIR)/target/previous/target cargo build --locked --bins)
	cargo build --locked --bins
	@LIVEPATCH_BIN_DIR=target/debug tests/upgrade.sh target/previous/target/debug

test-console: ## the console in a real browser: every flow, by keyboard too, and pictures of every page in target/console
	@status=0; tests/setup.sh console || status=$$?; \
	if [ $$status = 77 ]; then $(skip); fi; \
	[ $$status = 0 ] || exit $$status; \
	if cargo nextest --version >/dev/null 2>&1; then \
	  set -x; exec tests/services.sh cargo nextest run --locked --run-ignored only -E 'test(/^console_browser::/)'; \
	else set -x; exec tests/services.sh cargo test --locked --test it -- --ignored console_browser::; fi

test-kernel: ## a real kernel is patched, in a virtual machine, told step by step
	@status=0; tests/setup.sh kernel || status=$$?; \
	if [ $$status = 77 ]; then $(skip); fi; \
	[ $$status = 0 ] || exit $$status; \
	set -x; cargo build --locked --bins && LIVEPATCH_BIN_DIR=target/debug tests/kernel/run.sh

deb: ## make the Debian package: target/debian/*.deb
	@tests/setup.sh package
	cargo build --release --locked --bins
	packaging/stage.sh target/release target/release/packaging
	@# The date of what is in it is that of the last commit, so that the same commit gives the same package.
	SOURCE_DATE_EPOCH=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || date +%s)} target/tools/bin/cargo-deb --locked --no-build

test-package: ## make the Debian package, look at it, install it on a copy-on-write view of this machine, run its service
	@tests/setup.sh package
	cargo build --locked --bins
	@LIVEPATCH_BIN_DIR=target/debug tests/package.sh

test-image: ## build the image without any registry, and look at it and run it
	@status=0; tests/setup.sh image || status=$$?; \
	if [ $$status = 77 ]; then $(skip); fi; \
	[ $$status = 0 ] || exit $$status; \
	set -x; cargo build --locked --bins && LIVEPATCH_BIN_DIR=target/debug tests/image.sh

setup: ## install what `make check` needs
	@tests/setup.sh check

clean-data: ## delete what `make run` keeps: its database, patches and keys
	@DATA_DIR='$(DATA_DIR)' exec tests/run.sh clean
