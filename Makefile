# `make demo` and `make test` do all the set-up on a fresh machine: they need Python 3.11 or later
# with venv, Rust (cargo), and nothing else. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find rust -name '*.rs')

.DEFAULT_GOAL := help
.PHONY: help demo test lint test-rust test-python stubs audit bench bench-catalog bench-store \
	bench-async bench-simulators bench-reduced bench-kernels tables fuzz fuzz-coverage search \
	asan tsan soak soak-kills soak-forks free-threaded wheel sdist refit clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

# --- set-up -------------------------------------------------------------------------------------

$(VENV)/.base: pyproject.toml
	@command -v cargo >/dev/null || { echo "Rust is needed to build the core: https://rustup.rs" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; set PYTHON=/path/to/python" >&2; exit 1; }
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "maturin>=1.9,<2"
	$(BIN)/python -m pip install --quiet "matplotlib>=3.8"
	touch $@

$(VENV)/.test: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --group test --group lint "torch>=2.2" "tensorboard>=2.15" "scikit-learn>=1.4"
	touch $@

$(VENV)/.built: $(VENV)/.base $(SOURCES)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --quiet
	touch $@

# --- what people run ----------------------------------------------------------------------------

demo: $(VENV)/.built ## Simulate a million pages to Parquet; print a summary, draw a picture
	@mkdir -p demo
	$(BIN)/virtualtb-fast rollout --pages 1000000 --seed 0 \
		--out demo/logs.parquet --overwrite --plot demo/sessions.png
	@echo "Columns: README, 'Observation, action, log'. Picture: demo/sessions.png"

test: lint stubs test-rust test-python ## All tests: lints, stubs, Rust, Python

lint: $(VENV)/.test $(VENV)/.built ## Formatting, lints, types
	cargo fmt --check
	cargo clippy --release --all-targets --features python --quiet -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-rust: ## Rust tests, on a build that knows no Python
	cargo test --release --quiet

test-python: $(VENV)/.test $(VENV)/.built ## Python tests
	$(BIN)/python -m pytest

stubs: $(VENV)/.test $(VENV)/.built ## Stubs against the native module (stubtest); pyright
	$(BIN)/python -m pip install --quiet --group stubs
	$(BIN)/python -m mypy.stubtest virtualtb_fast._core
	$(BIN)/pyright --pythonpath $(BIN)/python

audit: $(VENV)/.test ## Known faults and licences of all that we depend on (needs cargo-deny)
	$(BIN)/python -m pip install --quiet "pip-audit>=2.9"
	$(BIN)/pip-audit --skip-editable
	@command -v cargo-deny >/dev/null || \
		{ echo "crates were not checked: cargo install --locked cargo-deny" >&2; exit 1; }
	cargo deny --locked check

bench: $(VENV)/.test $(VENV)/.built ## Measure environments against rivals; README's table and picture
	$(BIN)/virtualtb-fast bench --rounds 7 --seconds 1 \
		--out benches/results/environments.json --plot benches/results/environments.png \
		--overwrite
	$(BIN)/python tools/readme_tables.py

bench-catalog: $(VENV)/.test $(VENV)/.built ## Measure search against faiss, usearch and numpy
	$(BIN)/python -m pip install --quiet faiss-cpu usearch
	$(BIN)/python -m benches.catalog

bench-store: $(VENV)/.test $(VENV)/.built ## Measure the ground-truth store against NumPy
	$(BIN)/python -m benches.store

bench-async: $(VENV)/.test $(VENV)/.built ## Measure what send and recv gain beside a PyTorch policy
	$(BIN)/python -m benches.asynchronous --json benches/results/async.json

bench-simulators: $(VENV)/.test $(VENV)/.built ## Measure every kind of simulator against the published
	$(BIN)/python -m benches.simulators

bench-reduced: $(VENV)/.test $(VENV)/.built ## Measure what reduced precision changes: PUBLISHED=folder, or none
	$(BIN)/python -m benches.reduced $(if $(PUBLISHED),--published "$(PUBLISHED)") \
		--json benches/results/reduced.json

TABLES := responses table1 table2 figure3 figure4 figure5

tables: $(VENV)/.test $(VENV)/.built ## Learn and judge all that README quotes, in hours: make tables PUBLISHED=folder
	@[ -d "$(PUBLISHED)" ] || { echo "expected PUBLISHED=folder of the published networks" >&2; exit 1; }
	@mkdir -p benches/results/learned
	for name in $(TABLES); do \
		out=target/tables/$$name; set --; \
		case $$name in \
			responses) set -- --methods linear bc bc+mail mail;; \
			table1) set -- --published "$(PUBLISHED)";; \
			figure3) out=target/tables/table1;; \
			figure5) set -- --customers lca --responses bc --worlds 100 101 102 103 104;; \
		esac; \
		$(BIN)/virtualtb-fast report $$name "$$@" --out $$out && \
		cp $$out/$$name.json $$out/$$name.png benches/results/learned/ || exit 1; \
	done
	$(BIN)/virtualtb-fast report responses --methods mail-paper --worlds 100 --iterations 10 \
		--out target/tables/paper
	cp target/tables/paper/responses.json benches/results/learned/responses-paper.json
	$(BIN)/virtualtb-fast report figure5 --warm --customers lca --responses bc --worlds 100 \
		--out target/tables/figure5
	cp target/tables/figure5/figure5-warm.json benches/results/learned/
	if [ -d "$(VIRTUALTB_DATA)/kuairand_pure" ]; then \
		$(BIN)/python -m virtualtb_fast.evaluation.customer_table target/tables/real \
			--real "$(VIRTUALTB_DATA)" --samplers fresh gan-sd gmm independent lca rows && \
		$(BIN)/python -m benches.customers --cells target/tables/real \
			--json benches/results/learned/real.json || exit 1; \
	else echo "real customers were left out: expected kuairand_pure in VIRTUALTB_DATA" >&2; fi
	$(BIN)/python -m benches.fits published --published "$(PUBLISHED)" --work target/tables/fits \
		--json benches/results/learned/fits.json
	$(BIN)/python -m benches.fits scale --pages 1000000 10000000 --work target/tables/fits \
		--json benches/results/learned/fits.json
	rm -f benches/results/learned/cartpole.json
	$(BIN)/python -m benches.cartpole --json benches/results/learned/cartpole.json
	$(BIN)/python tools/readme_tables.py

bench-kernels: ## Measure every kernel against its naive version
	cargo bench --bench kernels

fuzz: $(VENV)/.test $(VENV)/.built ## Read two million mutated files of every kind: make fuzz FILES=2000000
	$(BIN)/python tests/fuzz/readers.py --files $(or $(FILES),2000000) \
		--json benches/results/reliability/fuzz.json

FUZZ_KINDS := simulator policy catalog log

fuzz-coverage: ## Fuzz each reader of the core, led by coverage: make fuzz-coverage SECONDS=300 (cargo-fuzz)
	@command -v cargo-fuzz >/dev/null || { echo "cargo install cargo-fuzz" >&2; exit 1; }
	for kind in $(FUZZ_KINDS); do \
		mkdir -p target/fuzz-corpus/$$kind; \
		RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz $$kind \
			target/fuzz-corpus/$$kind tests/fuzz/corpus/$$kind -- \
			-max_total_time=$(or $(SECONDS),300) -max_len=131072 -timeout=10 \
			-rss_limit_mb=2048 || exit 1; \
	done

asan: $(VENV)/.test $(VENV)/.built ## Rust tests and mutated files under AddressSanitizer
	$(BIN)/python tools/sanitizers.py address

tsan: $(VENV)/.test $(VENV)/.built ## The same under ThreadSanitizer
	$(BIN)/python tools/sanitizers.py thread

search: $(VENV)/.test $(VENV)/.built ## Look for bad calls that get through, 1,000 new ones a function
	$(BIN)/python -m pytest -q tests/reliability/test_bad_calls.py --hypothesis-profile=search

soak: $(VENV)/.test $(VENV)/.built ## Play 10^8 pages in every configuration: one digest, steady memory
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.reliability.soak --pages 100000000 \
		--json benches/results/reliability/soak.json

soak-kills: $(VENV)/.test $(VENV)/.built ## Kill rollouts 500 times, fail 200 writes, press Ctrl-C 1,000 times
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m tests.reliability.rollouts \
		--kills 500 --failures 200 --interrupts 1000 --json benches/results/reliability/kills.json
	$(BIN)/python -m tests.reliability.gaps --json benches/results/reliability/signals.json

soak-forks: $(VENV)/.test $(VENV)/.built ## Fork 500 times while threads are at work
	OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 $(BIN)/python -m tests.reliability.forks \
		--forks 500 --json benches/results/reliability/forks.json

free-threaded: ## Test the core under free-threaded Python: make free-threaded PYTHON=python3.14t
	$(PYTHON) -c 'import sysconfig; assert sysconfig.get_config_var("Py_GIL_DISABLED"), "expected a free-threaded Python"'
	$(PYTHON) -m venv target/free-threaded
	target/free-threaded/bin/python -m pip install --quiet "maturin>=1.9,<2"
	rm -rf target/free-threaded/dist
	target/free-threaded/bin/maturin build --release --locked --quiet \
		--interpreter target/free-threaded/bin/python --out target/free-threaded/dist
	target/free-threaded/bin/python tools/check_wheel.py target/free-threaded/dist --tests

wheel: $(VENV)/.base ## Build the wheel, exercise it in fresh environments: make wheel [PYTHONS="python3.12 ..."]
	rm -rf dist && $(BIN)/maturin build --release --out dist --quiet
	$(BIN)/python tools/check_wheel.py dist --pythons $(PYTHONS)

sdist: $(VENV)/.base ## Build the source distribution, build and install from it, exercise it
	rm -rf target/sdist && $(BIN)/maturin sdist --out target/sdist
	$(BIN)/python tools/check_sdist.py target/sdist --install

refit: $(VENV)/.test $(VENV)/.built ## Refit the embedded simulator: make refit PUBLISHED=folder
	$(BIN)/python tools/refit_virtualtb_v0.py --published "$(PUBLISHED)" --work target/refit \
		--out-tensors target/refit/refit.safetensors --report target/refit/report.json \
		--out python/virtualtb_fast/data/virtualtb-v0-refit.safetensors

clean: ## Remove what was built
	rm -rf target dist demo $(VENV)
