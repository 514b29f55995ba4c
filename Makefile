# Thin names for `python3 dev.py COMMAND`; pass arguments as in: make test ARGS="-k money"
PYTHON ?= python3
ARGS ?=

.PHONY: demo test test-all lint lock bench clean

demo test test-all lint lock bench:
	@$(PYTHON) dev.py $@ $(ARGS)

clean:
	rm -rf .venv .venv-sdk .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
