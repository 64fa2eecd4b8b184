# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` set up everything they need. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.setup-done
# interpreters of the other Pythons that lamina supports, made from packages (x86_64)
PYTHONS ?= 3.12 3.13 3.14
FAST := tests/unit tests/property tests/golden tests/contract
# what a tool says of the source is the same with every Python
ONCE := $(addprefix --ignore=tests/unit/test_,$(addsuffix .py,closed_unions imports conventions \
	lazy_imports coming_from_docker)) \
	--deselect=tests/unit/test_public_names.py::test_type_checker_sees_the_names_that_there_are

# what runs a second time, as an ordinary user
AS_USER := $(addprefix tests/integration/,$(addprefix acceptance/test_,$(addsuffix .py,bake_command \
	build_command build_options build_history platforms run_mounts)) lifecycle cache/test_cache_mounts.py)
AS_USER_TOO := tests/integration/volumes tests/integration/commands

.PHONY: setup demo test check check-pythons soak bench man clean
setup: $(SETUP)

$(SETUP): pyproject.toml requirements-dev.lock scripts/setup.sh
	PYTHON="$(PYTHON)" bash scripts/setup.sh "$(VENV)"
	touch $@

demo: setup
	bash scripts/demo.sh "$(BIN)/lamina"

check: setup
	$(BIN)/ruff format --check src tests bench scripts fuzz
	$(BIN)/ruff check src tests bench scripts fuzz
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_dockerfile_table.py
	$(BIN)/pytest -n auto $(FAST)

.pythons/%/.done: scripts/pythons.py requirements-test.lock $(SETUP)
	$(BIN)/python scripts/pythons.py $* .pythons/$*
	touch $@

# the fast tests, and the budgets of what commands import
check-pythons: setup
	$(MAKE) --no-print-directory -j3 $(PYTHONS:%=.pythons/%/.done)
	set -e; for version in $(PYTHONS); do echo "Python $$version"; \
	  bash scripts/test.sh .pythons/$$version/env/bin/pytest $(ONCE) $(FAST) \
	    tests/integration/acceptance/test_lean_start.py; done

test: setup check check-pythons
	bash scripts/test.sh $(BIN)/pytest tests/integration tests/security --durations=10
	bash scripts/test.sh $(BIN)/pytest --ordinary $(AS_USER)

# all of what `test` does a sample of: every corpus case asked of buildah again, many more kills; and more
# as an ordinary user
soak: setup
	LAMINA_TEST_WHOLE=1 bash scripts/test.sh $(BIN)/pytest tests/integration tests/security -m sampled
	bash scripts/test.sh $(BIN)/pytest --ordinary $(AS_USER_TOO)

bench: setup
	$(BIN)/python bench/run.py $(BENCH)

# the man pages, in build/man
man: setup
	$(BIN)/python scripts/man.py build/man

clean:
	rm -rf $(VENV) .pythons .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
