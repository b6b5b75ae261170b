# Every target sets up what it needs; nothing has to be installed before.
.DEFAULT_GOAL := help
.PHONY: help serve soak test test-shared test-workers test-clients test-container test-setup test-hostile crash golden fuzz screenshot bench bench-scaling check audit sbom lint format lock clean
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# Processes that share the tests: one more than processors, as tests also wait. Each has servers of its own.
TEST_WORKERS ?= $(shell n=$$(nproc); echo $$((n < 8 ? n + 1 : 8)))
# What the tests of the image need besides: program:Debian package.
CONTAINER_PROGRAMS := avahi-daemon:avahi-daemon avahi-publish:avahi-utils buildah:buildah bwrap:bubblewrap \
	dbus-daemon:dbus-daemon debootstrap:debootstrap docker-compose:docker-compose ip:iproute2 podman:podman \
	podman-compose:podman-compose runc:runc /usr/lib/podman/netavark:netavark /usr/lib/podman/aardvark-dns:aardvark-dns \
	systemd-analyze:systemd
SHELL_SCRIPTS := entrypoint.sh .ci/run $(wildcard scripts/* docs/deploy/*/*.sh config/kubernetes/*/*/*.sh)
LAB_WORKERS ?= 2
SOAK_MINUTES := 10
# The real clients that need root: program:Debian package.
CLIENT_PROGRAMS := buildah:buildah ctr:containerd debootstrap:debootstrap dockerd:docker.io podman:podman runc:runc

# What checks the alerts, too: program:Debian package.
METRICS_PROGRAMS := promtool:prometheus

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

serve: ## Start the proxy on port 3128, with cache and CA under var/
	@scripts/bootstrap runtime
	@exec scripts/serve $(ARGS)

test: ## Run all tests; ARGS="-k word" selects some, TEST_WORKERS=0 runs them in one process
	@scripts/bootstrap dev
	@scripts/test-packages
	@scripts/kubernetes-tools
	-@scripts/test-packages $(CLIENT_PROGRAMS) $(METRICS_PROGRAMS)
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal $(ARGS)

test-clients: ## Pull with every real client, Debian's and those of its next release, as root; elsewhere it says why not
	@scripts/bootstrap dev
	@scripts/test-packages
	-@scripts/test-packages $(CLIENT_PROGRAMS)
	@$(BIN)/python -m pytest -m clients --timeout=600 tests/e2e/clients $(ARGS)

test-shared: ## Test proxies that share a bucket, also what make test leaves out; SeaweedFS is the engine
	@scripts/bootstrap dev
	@scripts/test-packages
	-@scripts/test-packages containerd:containerd runc:runc
	@$(BIN)/python -m pytest -m "slow or not slow" --timeout=600 tests/unit/shared tests/e2e/test_shared_store.py \
		tests/e2e/test_refusals_of_replicas.py \
		tests/e2e/test_shared_operations.py tests/e2e/test_rolling_update.py tests/e2e/clients/test_replicas.py $(ARGS)

test-workers: ## Run the end-to-end tests with LAB_WORKERS=2 processes for each proxy, and what make test leaves out of them
	@scripts/bootstrap dev
	@scripts/test-packages
	@LAB_WORKERS=$(LAB_WORKERS) $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal --timeout=180 tests/e2e $(ARGS)
	@$(BIN)/python -m pytest -m slow --timeout=180 tests/e2e/test_crew.py tests/e2e/test_workers.py tests/e2e/test_drain.py

test-container: ## Build the image and run it and the recipes of docs/deploy, as root; elsewhere it says why not
	@scripts/bootstrap dev
	-@scripts/test-packages $(CONTAINER_PROGRAMS)
	@scripts/kubernetes-tools
	@$(BIN)/python -m pytest -m container --timeout=600 tests/container $(ARGS)

test-setup: ## Run every set-up script in throw-away roots, also those that make test leaves out, as root
	@scripts/bootstrap dev
	@scripts/test-packages
	-@scripts/test-packages containerd:containerd dockerd:docker.io podman:podman
	@$(BIN)/python -m pytest -m "slow or not slow" tests/e2e/setup $(ARGS)

test-hostile: ## Every case of docs/hostile-upstreams.md and docs/hostile-clients.md, also those that make test leaves out
	@scripts/bootstrap dev
	@scripts/test-packages
	@$(BIN)/python -m pytest -m "slow or not slow" tests/e2e/test_hostile_upstreams.py \
		tests/e2e/test_hostile_clients.py tests/e2e/test_hostile_connections.py $(ARGS)

golden: ## Renew tests/golden and docs/conformance.md after a wanted change; look at the difference
	@scripts/bootstrap dev
	@RENEW_GOLDEN=1 $(BIN)/python -m pytest -q tests/unit/stack/test_setup_clients.py tests/e2e/test_conformance.py
	@git --no-pager diff --stat tests/golden docs/conformance.md

soak: ## Load and disturb the proxy for SOAK_MINUTES=10, and write what is left of it to docs/soak.md
	@scripts/bootstrap dev
	@scripts/test-packages
	-@scripts/test-packages $(CLIENT_PROGRAMS)
	@cd tests && ../$(BIN)/python -m lab.soak --minutes $(SOAK_MINUTES) --write

screenshot: ## Renew the picture of the dashboard in docs/images
	@scripts/bootstrap dev
	@scripts/test-packages
	@RENEW_SCREENSHOT=1 $(BIN)/python -m pytest -q -m slow tests/e2e/test_dashboard.py

crash: ## Kill a process with the store 400 times, half of them with files lost as in a power cut
	@scripts/bootstrap dev
	@$(BIN)/python -m pytest -s -m slow tests/unit/store/test_crashes.py $(ARGS)

fuzz: ## Fuzz the parsers, FUZZ_SECONDS=60 each; FUZZ_TARGETS="names ranges" selects some
	@scripts/bootstrap dev
	@scripts/fuzz

bench: ## Compare with nginx, docker-registry, Squid and mitmdump; ARGS="--quick" for a look
	@scripts/bootstrap dev
	@scripts/bench-packages
	@$(BIN)/python -m bench $(ARGS)

bench-scaling: ## Measure 1, 2 and 4 workers and two replicas with a bucket, and the model of docs/scaling.md; ARGS="--quick"
	@scripts/bootstrap dev
	@scripts/bench-packages
	@$(BIN)/python -m bench.scaling $(ARGS)
	@if [ "$$(id -u)" = 0 ]; then $(BIN)/python -m bench.scaling.check; else echo "the model is checked as root only"; fi

check: lint audit ## Lint, check the types, and audit the packages
	@$(BIN)/mypy --strict

audit: ## Ask PyPI whether the pinned packages have known vulnerabilities; offline it says so and goes on
	@scripts/bootstrap dev
	@$(BIN)/python -m supply.audit

sbom: ## Print what the image holds as CycloneDX JSON; IMAGE=name, made before with podman or docker
	@scripts/bootstrap dev
	@scripts/sbom $(IMAGE)

lint: ## Check style, format and shell scripts
	@scripts/bootstrap dev
	@scripts/test-packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@shellcheck $(SHELL_SCRIPTS)

format: ## Format the code and repair what can be repaired
	@scripts/bootstrap dev
	@$(BIN)/ruff check --fix --exit-zero .
	@$(BIN)/ruff format .

lock: ## Pin new versions of all packages
	@scripts/bootstrap dev
	@scripts/lock

clean: ## Remove the environment and the caches of tools; var/ (cache, CA) stays
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
