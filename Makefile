# Needs Python 3.10 or newer and make; everything else is installed into .venv.
PYTHON ?= python3
PROFILE ?=

BIN := .venv/bin
STAMP := .venv/.installed
CLUSTER := .venv/.cluster
ALONE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
CORES = $$($(BIN)/python -c 'import joblib; print(joblib.cpu_count())')
# The scorecard reads what the other notebooks report, so it comes last.
CHAPTERS = $(filter-out notebooks/scorecard.ipynb,$(wildcard notebooks/*.ipynb))
NOTEBOOKS = $(CHAPTERS) $(wildcard notebooks/scorecard.ipynb)
# A new folder for results, removed at the end: what runs in it computes everything afresh.
FRESH_RESULTS = results=$$(mktemp -d) && trap 'rm -rf "$$results"' EXIT && \
	trap 'exit 130' INT TERM && export SUPERPOS_RESULTS="$$results"

AUDITED = $(BIN)/python -m uv tool run --quiet pip-audit --progress-spinner off \
	--strict --no-deps --disable-pip -r
# A release with known vulnerabilities: where none is reported, the service was not asked.
KNOWN = pip==20.0

EXECUTE = import sys, nbclient, nbformat; path = sys.argv[1]; \
	nbformat.write(nbclient.execute(nbformat.read(path, 4), cwd='notebooks', record_timing=False), path)

.DEFAULT_GOAL := help
.PHONY: help install book notebooks test coverage faults engines mutants browser lint audit vendor clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | \
		while IFS='|' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

install: $(STAMP) ## make .venv and install everything into it

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo \
		"$(PYTHON) was not found: install Python 3.10 or newer, or name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo \
		"$(PYTHON) is older than Python 3.10: install a newer one, or name it with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo \
		"$(PYTHON) lacks the modules venv and ensurepip: install them (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	@echo "installing into .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[book,test]'
	@touch $@

$(CLUSTER): $(STAMP)
	@echo "installing Ray, Dask and an object store into .venv"
	@$(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[book,test,faults]'
	@touch $@

book: $(STAMP) ## run every notebook and build the book (PROFILE=workstation or paper for more)
	@$(BIN)/superpos book $(if $(PROFILE),--profile $(PROFILE))

notebooks: $(STAMP) ## run every notebook in place, to commit it with its outputs
	@$(FRESH_RESULTS) && for notebook in $(NOTEBOOKS); do \
		echo "$$notebook" && $(BIN)/python -c "$(EXECUTE)" "$$notebook" || exit 1; done

test: $(STAMP) ## run all tests, and the notebooks as regression tests
	@$(FRESH_RESULTS) && $(ALONE) $(BIN)/python -m pytest \
		-m 'not browser and not faults' -n "$(CORES)" --dist loadfile --no-loadscope-reorder \
		--nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval.cfg $(NOTEBOOKS) tests

faults: $(CLUSTER) ## do harm to running sweeps; records in results/faults.json what became of the data
	@$(ALONE) $(BIN)/python -m pytest tests/faults --record-faults results/faults.json

engines: $(CLUSTER) ## measure what each engine costs beside its conditions, into results/engines.json
	@$(ALONE) $(BIN)/python benchmarks/engines.py --json results/engines.json

mutants: $(STAMP) ## put faults into the core and count those that no test notices
	@$(ALONE) $(BIN)/python -m uv run --quiet --no-project --python $(BIN)/python \
		--with mutmut==3.8.1 python benchmarks/mutants.py --processes "$(CORES)"

coverage: $(STAMP) ## run all tests and list the lines of superpos that none of them runs
	@$(FRESH_RESULTS) && $(ALONE) $(BIN)/python -m pytest \
		-m 'not browser and not faults' -n "$(CORES)" --dist loadfile --cov=superpos tests

browser: $(STAMP) ## check the built book in Chromium (after `make book`)
	@$(BIN)/python -m pytest tests/browser

lint: $(STAMP) ## check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

audit: $(STAMP) ## look up every installed package among known vulnerabilities
	@list=$$(mktemp) && trap 'rm -f "$$list"' EXIT && echo '$(KNOWN)' > "$$list" && \
		{ $(AUDITED) "$$list" 2>&1 | grep -q 'Found .* known vulnerabilit' || { echo \
		"no service of known vulnerabilities can be asked from here: run this where there is a network" \
		>&2; exit 1; }; } && \
		$(BIN)/python -m uv pip freeze --python $(BIN)/python --exclude-editable | \
		sed 's/+[^ ]*//' > "$$list" && $(AUDITED) "$$list"

vendor: ## fetch the pages' scripts and fonts again (needs npm)
	@$(PYTHON) book/vendor.py

clean: ## remove the built book, executed notebooks, quick results, stocked networks and caches (not .venv)
	@rm -rf _build book/executed results/quick results/stock mutants .coverage \
		.pytest_cache .ruff_cache .hypothesis
	@find superpos tests benchmarks notebooks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
