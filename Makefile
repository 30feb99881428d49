# Two commands: `make demo` and `make test`. Both make .venv once.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
DURATION ?= 60
SEED ?= 1
MINUTES ?= 8
TRACE  := $(firstword $(wildcard ../shared/data/channel-traces/amazon-prime_static_2020.01.06*.csv.gz))

.PHONY: install demo test lint stubs check-stubs docs wheel bench chaos clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) not found (set PYTHON=...)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(BIN)/python -m agents.emulator.warmup
	$(BIN)/python -m controller.warmup
	@touch $@

demo: install
	$(BIN)/prbandit up --duration $(DURATION) $(if $(TRACE),--channel-trace $(TRACE))

# Most tests wait for clocks and processes: two files at a time take half as long.
test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

stubs: install
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. wire/*.proto

check-stubs: install
	@tmp=$$(mktemp -d) && trap 'rm -rf '$$tmp EXIT && \
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=$$tmp --pyi_out=$$tmp --grpc_python_out=$$tmp wire/*.proto && \
	for f in $$tmp/wire/*; do cmp -s $$f wire/$$(basename $$f) || { echo "stale: wire/$$(basename $$f); run make stubs" >&2; exit 1; }; done && \
	echo "stubs are fresh"

# Every warning is an error, a link or an anchor that leads nowhere is one. Nothing is fetched.
docs: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	$(BIN)/sphinx-build -E -W --keep-going -n -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

# Wheel and source distribution in dist/; the wheel is made from the latter, installed elsewhere and tried.
wheel: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[release]'
	rm -rf build dist
	$(BIN)/python -m build --outdir dist . >/dev/null
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m tests.release dist/*.whl

bench: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m tests.bench

# About eight minutes. More of it: make chaos MINUTES=60 SEED=2
chaos: install
	$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES)

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info
