# Everything lives in .venv, and scripts/find-python says which Python makes it: no target needs
# one on the PATH. ARGS goes to the command behind a target: make test ARGS='-k cohorts'.

.DEFAULT_GOAL := help
.PHONY: help install demo test test-unit test-slow test-deploy test-all coverage lint check bench simulate format generate generated lock screenshots clean

BIN := .venv/bin
INSTALLED := .venv/installed

# The first pip that knows dependency groups (PEP 735); the one that comes with Python may be older.
PIP := 'pip>=25.1'

# Compiled code is kept, or each of a thousand sidecars that the tests start compiles its own.
unexport PYTHONDONTWRITEBYTECODE

# The stamp of a whole .venv holds this folder's path. If Python is gone or the folder has moved,
# then it is no longer true, and goes.
ifneq ($(shell $(BIN)/python -IS -c '' 2>/dev/null && cat $(INSTALLED) 2>/dev/null),$(CURDIR))
$(shell rm -f $(INSTALLED))
endif

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## Install counterfault and all it needs into .venv

$(INSTALLED): pyproject.toml constraints.txt
	@set -e; \
	if [ ! -e $@ ]; then \
		python=$$(scripts/find-python); \
		echo 'installing into .venv (about a minute) …'; \
		rm -rf .venv; \
		"$$python" -m venv .venv; \
	else \
		echo 'updating .venv …'; \
		rm $@; \
	fi; \
	pip="$(BIN)/python -m pip --disable-pip-version-check install"; \
	{ $$pip $(PIP) && $$pip -c constraints.txt -e '.[envoy]' --group dev; } \
		>.venv/install.log 2>&1 || { status=$$?; cat .venv/install.log >&2; exit $$status; }; \
	pwd -P >$@

demo: install ## Try it: a small shop, a fault and a verdict
	@$(BIN)/counterfault demo $(ARGS)

# As many at a time as there are processors; tests/support/suite_plan.py says which are together.
PYTEST := $(BIN)/python -m pytest -n logical --dist loadscope --no-loadscope-reorder

test: install ## Run the tests that tell that it works, on both engines (under five minutes)
	$(PYTEST) $(ARGS)

test-unit: install ## Run the tests that start no other program (under a minute)
	$(PYTEST) tests/unit $(ARGS)

test-slow: install ## Run the tests that `make test` leaves out
	$(PYTEST) -m 'slow or twin or deploy' $(ARGS)

test-deploy: install ## Run the tests of deploy/, of the wheel, of the page in a browser and of the docs
	$(PYTEST) -m 'deploy and not slow' tests/deploy tests/packaging tests/browser tests/docs $(ARGS)

test-all: install ## Run all tests (under 25 minutes)
	$(PYTEST) -m '' $(ARGS)

coverage: install ## Measure the branch coverage of all tests, also in the processes that they start
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n logical --dist loadscope --no-loadscope-reorder -m '' $(ARGS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage html -q
	$(BIN)/coverage report

lint: install ## Lint, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint generated test ## Lint, types, layers, generated files and tests; CI takes test-all instead of test

bench: install ## Measure the speed against stock mitmdump (wrk, h2load, nginx; ten minutes)
	@$(BIN)/python -m tests.bench.run $(ARGS)

# One thread each: numpy's own threads would only be in each other's way.
simulate: install ## Measure how often the verdict is wrong, and its speed (hours; can be stopped, and goes on)
	@OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.simulate.run $(ARGS)

format: install ## Put the source in shape
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

# Not the golden configuration of Envoy: it is there to be compared with, so a person writes it anew.
generate: install ## Write anew all that programs write: schemas, tables, dashboards, rules, filters
	$(BIN)/counterfault schema
	$(BIN)/python -m counterfault.proxy.admin.openapi
	$(BIN)/python -m docs.faults_table
	$(BIN)/python -m docs.metrics_table
	$(BIN)/python -m tests.simulate.readme
	$(BIN)/python -m deploy.grafana.build
	$(BIN)/python -m deploy.prometheus.build
	$(BIN)/python scripts/build-wasm

STATE := { git diff HEAD; git status --porcelain; }

generated: install ## Fail if make generate changes a file
	@set -e; \
	git rev-parse --git-dir >/dev/null; \
	before=$$($(STATE)); \
	$(MAKE) --no-print-directory generate; \
	[ "$$before" = "$$($(STATE))" ] || { \
		echo 'make generate has changed files; commit them:' >&2; git status --short >&2; exit 1; \
	}

screenshots: install ## Take docs/images anew, of the page in Chromium (three minutes)
	SCREENSHOTS=docs/images $(BIN)/python -m pytest -m slow tests/browser/test_screenshots.py $(ARGS)

# mitmproxy wants an old typing_extensions on 3.12, and so gets an old pydantic there, which has no
# wheels for 3.14. So 3.12's versions hold below 3.14, where they work too, and 3.13's from there.
lock: ## Write constraints.txt anew (needs CPython 3.12 and 3.13)
	@set -e; \
	dir=$$(mktemp -d); \
	trap 'rm -rf "$$dir"' EXIT; \
	for version in 3.12 3.13; do \
		python=$$(scripts/find-python $$version); \
		echo "resolving for $$version …"; \
		"$$python" -m venv "$$dir/venv-$$version"; \
		pip="$$dir/venv-$$version/bin/python -m pip --disable-pip-version-check"; \
		{ $$pip install -q $(PIP) && $$pip install -q '.[envoy]' --group dev; } 2>"$$dir/log" || \
			{ cat "$$dir/log" >&2; exit 1; }; \
		$$pip freeze --exclude counterfault >"$$dir/freeze"; \
		grep -E '^[A-Za-z0-9._-]+==[A-Za-z0-9.!]+$$' "$$dir/freeze" | LC_ALL=C sort >"$$dir/$$version"; \
	done; \
	{ \
		echo '# What is tested together. Written by make lock; do not edit.'; \
		{ \
			LC_ALL=C comm -12 "$$dir/3.12" "$$dir/3.13"; \
			LC_ALL=C comm -23 "$$dir/3.12" "$$dir/3.13" | sed 's/$$/ ; python_version < "3.14"/'; \
			LC_ALL=C comm -13 "$$dir/3.12" "$$dir/3.13" | sed 's/$$/ ; python_version >= "3.14"/'; \
		} | LC_ALL=C sort -f; \
	} >constraints.txt

clean: ## Remove .venv and all else that was made
	rm -rf .venv build dist .coverage.d htmlcov
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
