# Every command of a developer. `make` alone lists them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOCK := requirements.lock
UV := VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps

# Many containers set it. Every process of a test run would then compile every module that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(STAMP) ## Build .venv from the hash-pinned lock file

# Wheels only, so no compiler is needed; hashes, so nothing but what was locked is installed. pip fetches uv, and
# uv the rest; what is never imported is never compiled: together 13 s of CPU time where pip alone took 56. Where
# uv finds no way to the packages (it does not read pip's configuration), pip does it all.
$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12" >&2; exit 1; }
	@mkdir -p '$(VENV)' 2>/dev/null && [ -w '$(VENV)' ] || \
		{ echo "The folder $(VENV) cannot be written; choose another: make $(or $(firstword $(MAKECMDGOALS)),install) VENV=/path/to/folder" >&2; exit 1; }
	@$(BIN)/python -c 'import sys; print(sys.version)' 2>/dev/null | grep -qxF "$$($(PYTHON) -c 'import sys; print(sys.version)')" || \
		$(PYTHON) -m venv --clear $(VENV)
	@awk '/^uv==/ {keep = 1} keep {print} keep && !/\\$$/ {exit}' $(LOCK) > $(VENV)/uv.lock
	$(PIP) --only-binary :all: --require-hashes -r $(VENV)/uv.lock
	@SSL_CERT_FILE="$${SSL_CERT_FILE:-$$PIP_CERT}" $(UV) --only-binary :all: --require-hashes -r $(LOCK) || \
		{ echo "uv could not install the packages; pip does, which takes about a minute." >&2; \
		$(PIP) --only-binary :all: --require-hashes -r $(LOCK); }
	$(PIP) --no-build-isolation -e .
	@touch $@

.PHONY: run
run: $(STAMP) ## Start everything here: database, queue, gateway, web (Ctrl-C stops it)
	@exec $(BIN)/python -m cli up $(ARGS)

.PHONY: test
test: $(STAMP) ## Run the tests against servers that the run starts itself
	$(BIN)/python -m pytest $(ARGS)

.PHONY: test-all
test-all: $(STAMP) ## Run the exhaustive tests too, and the kit's under every Python here
	KIT_PYTHONS=all $(BIN)/python -m pytest -m "" $(ARGS)

.PHONY: coverage
coverage: $(STAMP) ## Print the branch coverage of the engine, with the lines that no test reaches
	$(BIN)/python -m pytest tests/bus tests/workers tests/webapp tests/mcp_gateway --cov=bus --cov-branch \
		--cov-report=term-missing:skip-covered --cov-fail-under=95 $(ARGS)

.PHONY: test-kit
test-kit: $(STAMP) ## Run every test of the kit under the oldest and the newest Python here
	KIT_PYTHONS=all $(BIN)/python -m pytest tests/kit -m "" $(ARGS)

.PHONY: test-oldest
test-oldest: $(STAMP) ## Run the tests on PostgreSQL 16, the oldest supported (fetches it)
	@$(BIN)/python -m tests.oldest_postgres $(ARGS)

.PHONY: lint
lint: $(STAMP) ## Check style, formatting, import contracts and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/python scripts/check_style.py

.PHONY: fmt
fmt: $(STAMP) ## Format the code and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: types
types: $(STAMP) ## Check types only
	$(BIN)/mypy

.PHONY: migrate
migrate: $(STAMP) ## Bring the database of DATABASE_URL, or the running one, to the newest schema
	@$(BIN)/python -m cli migrate

.PHONY: demo
demo: $(STAMP) ## Let simulated agents work through the running bus, and report
	@$(BIN)/python -m cli demo $(ARGS)

.PHONY: conformance
conformance: $(STAMP) ## Run the official MCP conformance suite (fetches it, and Node if there is none)
	@$(BIN)/python -m tests.conformance.run

.PHONY: screens
screens: $(STAMP) ## Take a picture of every page, into screens/ (needs a Chromium)
	@$(BIN)/python -m tests.webapp.screenshots $(ARGS)

.PHONY: proof
proof: $(STAMP) ## Judge the history of 100,000 calls under kills, outages and restarts (a quarter of an hour)
	$(BIN)/python -m tests.proof $(ARGS)
	$(BIN)/python -m tests.proof --restarts 20 --operations 20000

.PHONY: proof-isolation
proof-isolation: $(STAMP) ## Judge 5,000 runs of random calls of two tenants against a model; see reliability.md
	$(BIN)/python -m tests.proof.isolation $(ARGS)

.PHONY: proof-fuzz
proof-fuzz: $(STAMP) ## Send 50,000 generated tool calls, 10,000 requests to the web and damaged bytes
	$(BIN)/python -m tests.proof.fuzz $(ARGS)

.PHONY: clients
clients: $(STAMP) ## Drive real clients through scripted sessions (fetches them, and Node if there is none)
	@$(BIN)/python -m tests.clients $(ARGS)

.PHONY: bench
bench: $(STAMP) ## Measure the gateway under load, with a report (a quarter of an hour)
	@$(BIN)/python -m bench $(ARGS)

.PHONY: soak
soak: $(STAMP) ## The mix of calls for an hour (MINUTES=60): rate, memory and tables at the start and at the end
	@$(BIN)/python -m bench --only soak --minutes $(or $(MINUTES),60) $(ARGS)

.PHONY: bench-quick
bench-quick: $(STAMP) ## The same in two minutes, for every day
	@$(BIN)/python -m bench --quick $(ARGS)

.PHONY: docs
docs: $(STAMP) ## Regenerate the reference pages from the code
	$(BIN)/python -m mcp_gateway.reference > docs/reference/tools.md
	$(BIN)/python -m cli.settings_reference > docs/reference/settings.md
	$(BIN)/python -m cli.env_example > .env.example
	$(BIN)/python -m cli.reference docs/reference
	$(BIN)/python -m cli.kit_files
	$(BIN)/python -m scripts.badges
	$(BIN)/python -m scripts.readme_tools

.PHONY: docs-site
docs-site: $(STAMP) ## Build the documentation as a static site, into dist/site; a broken link ends it
	@./.ci/docs-site $(ARGS)

.PHONY: check-deploy
check-deploy: $(STAMP) ## Check compose.yaml, the manifests and the workflows against their schemas
	@./.ci/check-deploy

.PHONY: dist
dist: $(STAMP) ## Build the source distribution and the wheel into dist/, reproducibly
	rm -rf dist/llm_bus-*
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m hatchling build -t sdist -t wheel -d dist

.PHONY: release
release: $(STAMP) ## Set the version (VERSION=X.Y.Z) and date what is unreleased in CHANGELOG.md
	@$(BIN)/python -m scripts.release prepare "$(VERSION)"

.PHONY: lock
lock: ## Resolve the lock files from pyproject.toml
	PYTHON=$(PYTHON) ./.ci/lock

.PHONY: audit
audit: $(STAMP) ## Check the packages for known vulnerabilities and write a list of them (asks a service)
	@./.ci/audit

.PHONY: clean
clean: ## Remove .venv and caches; the data folder stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.data/*' -prune -exec rm -rf {} +
