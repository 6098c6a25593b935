# The two commands of the README are `make demo` and `make test`; `make check` is lint, types and documentation.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo test test-oldest check docs format clean

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(RUN)/kintsugi demo -o demo-out

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -n $(JOBS) --dist worksteal -q

.venv-oldest/installed: pyproject.toml constraints-oldest.txt
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt torch
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-oldest.txt -e '.[all]' pytest hypothesis
	touch $@

# with the lower bounds of pyproject.toml: data in, training, answers, files, reports, the command line
OLDEST := core table estimator store files tasks evaluation measures report cli bench_store datasets fingerprint
test-oldest: .venv-oldest/installed
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -q -p no:cacheprovider $(OLDEST:%=tests/test_%.py)

check: $(VENV)/installed
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/sphinx-build -W -q -b html docs docs/_build/html

docs: $(VENV)/installed
	$(RUN)/sphinx-build -W -b html docs docs/_build/html

format: $(VENV)/installed
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

clean:
	rm -rf $(VENV) .venv-oldest docs/_build docs/api/generated docs/methods demo-out
