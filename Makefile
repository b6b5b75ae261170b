# Every target sets up what it needs; nothing has to be installed before.
.DEFAULT_GOAL := help
.PHONY: help serve test test-container bench check audit sbom lint format lock clean
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# What the tests of the image need besides: program:Debian package.
CONTAINER_PROGRAMS := avahi-daemon:avahi-daemon avahi-publish:avahi-utils buildah:buildah bwrap:bubblewrap \
	dbus-daemon:dbus-daemon debootstrap:debootstrap docker-compose:docker-compose ip:iproute2 podman:podman \
	podman-compose:podman-compose runc:runc /usr/lib/podman/netavark:netavark /usr/lib/podman/aardvark-dns:aardvark-dns \
	systemd-analyze:systemd
SHELL_SCRIPTS := entrypoint.sh .ci/run $(wildcard scripts/* docs/deploy/*/*.sh)

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24

serve: ## Start the proxy on port 3128, with cache and CA under var/
	@scripts/bootstrap runtime
	@exec scripts/serve $(ARGS)

test: ## Run all tests; ARGS="-k word" selects some
	@scripts/bootstrap dev
	@scripts/test-packages
	@$(BIN)/python -m pytest $(ARGS)

test-container: ## Build the image and run it and the recipes of docs/deploy, as root; elsewhere it says why not
	@scripts/bootstrap dev
	-@scripts/test-packages $(CONTAINER_PROGRAMS)
	@$(BIN)/python -m pytest -m container --timeout=600 tests/container $(ARGS)

bench: ## Compare with nginx, docker-registry, Squid and mitmdump; ARGS="--quick" for a look
	@scripts/bootstrap dev
	@scripts/bench-packages
	@$(BIN)/python -m bench $(ARGS)

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
