# Every target sets up what it needs; nothing has to be installed before.
.DEFAULT_GOAL := help
.PHONY: help serve test test-shared test-clients test-container test-setup golden bench check lint format lock clean
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# What the tests of the image need besides: program:Debian package.
CONTAINER_PROGRAMS := avahi-daemon:avahi-daemon avahi-publish:avahi-utils buildah:buildah bwrap:bubblewrap \
	dbus-daemon:dbus-daemon debootstrap:debootstrap docker-compose:docker-compose ip:iproute2 podman:podman \
	podman-compose:podman-compose runc:runc /usr/lib/podman/netavark:netavark /usr/lib/podman/aardvark-dns:aardvark-dns \
	systemd-analyze:systemd
SHELL_SCRIPTS := entrypoint.sh .ci/run $(wildcard scripts/* docs/deploy/*/*.sh config/kubernetes/*/*/*.sh)
# The real clients that need root: program:Debian package.
CLIENT_PROGRAMS := buildah:buildah ctr:containerd debootstrap:debootstrap dockerd:docker.io podman:podman runc:runc

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

serve: ## Start the proxy on port 3128, with cache and CA under var/
	@scripts/bootstrap runtime
	@exec scripts/serve $(ARGS)

test: ## Run all tests; ARGS="-k word" selects some
	@scripts/bootstrap dev
	@scripts/test-packages
	@scripts/kubernetes-tools
	-@scripts/test-packages $(CLIENT_PROGRAMS)
	@$(BIN)/python -m pytest $(ARGS)

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
		tests/e2e/clients/test_replicas.py $(ARGS)

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

golden: ## Renew the texts of tests/golden after a wanted change; look at the difference
	@scripts/bootstrap dev
	@RENEW_GOLDEN=1 $(BIN)/python -m pytest -q tests/unit/stack/test_setup_clients.py
	@git --no-pager diff --stat tests/golden

bench: ## Compare with nginx, docker-registry, Squid and mitmdump; ARGS="--quick" for a look
	@scripts/bootstrap dev
	@scripts/bench-packages
	@$(BIN)/python -m bench $(ARGS)

check: lint ## Lint and check the types
	@$(BIN)/mypy --strict

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
