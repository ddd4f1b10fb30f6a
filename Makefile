# `make demo` trains the classic VAE on the bundled sample; `make test` runs the suite, `make test-slow` the tests
# that take minutes; `make docs` builds the documentation in docs/_build/html. Each does its whole set-up.
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= runs/demo
EPOCHS ?= 60

.PHONY: demo test test-slow check docs clean

demo: .venv/ready
	$(BIN)/vaekit train --preset classic --epochs $(EPOCHS) --out $(DEMO) --resume
	$(BIN)/vaekit generate $(DEMO) -n 64
	@echo "Look at $(DEMO)/report.html, and at the new images in $(DEMO)/generated/"

test: .venv/ready
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow'

test-slow: .venv/ready
	$(BIN)/pytest -n 2 -m slow

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/docs
	$(BIN)/sphinx-build -E -W --keep-going -b html docs docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -b linkcheck -D nb_execution_mode=off docs docs/_build/linkcheck
	$(BIN)/python tools/docs/check_site.py docs/_build/html

.venv/docs: .venv/ready requirements-docs.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.lock
	touch $@

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'vaekit needs Python 3.11 or newer; set PYTHON=python3.12, say')"
	@echo "Installing packages into .venv, which takes a few minutes ..."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf .venv
