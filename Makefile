# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` set up everything they need. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.setup-done

# what runs a second time, as an ordinary user
AS_USER := $(addprefix tests/integration/,$(addprefix acceptance/test_,$(addsuffix .py,bake_command \
	build_command build_options build_history platforms run_mounts)) lifecycle cache/test_cache_mounts.py)

.PHONY: setup demo test check soak bench clean
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
	$(BIN)/pytest -n auto tests/unit tests/property tests/golden tests/contract

test: setup check
	bash scripts/test.sh $(BIN)/pytest tests/integration tests/security --durations=10
	bash scripts/test.sh $(BIN)/pytest --ordinary $(AS_USER)

# all of what `test` does a sample of: every corpus case asked of buildah again, many more kills
soak: setup
	LAMINA_TEST_WHOLE=1 bash scripts/test.sh $(BIN)/pytest tests/integration tests/security -m sampled

bench: setup
	$(BIN)/python bench/run.py $(BENCH)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
