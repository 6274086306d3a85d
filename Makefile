.PHONY: help setup serve test check fix test-helm test-cluster test-node test-gpu bench-gpu bench constraints proto clean
PYTHON := .venv/bin/python
# As the server has it (launcher/backend_folder.py): idle OpenMP threads must not burn what other programs need.
export GOMP_SPINCOUNT ?= 10000

help: ## list these verbs
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-17s %s\n", $$1, $$2}'

setup: ## everything that the tests and checks need, into .venv
	@scripts/setup.sh dev

serve: ## serve the default checkpoint; ARGS='--port 9000' passes options
	@./run_autoglm_server.sh $(ARGS)

test: export OMP_NUM_THREADS ?= 1
test: setup ## all tests, those on the real Triton binary included; ARGS='-k launcher' selects
	$(PYTHON) -m pytest -m "not gpu" $(ARGS)

check: setup ## lint, format and types
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pyright

fix: setup ## apply the formatter and the safe lint fixes
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

test-helm: setup ## the Helm chart without a cluster; nothing may be skipped
	AUTOGLM_ASKED_FOR=helm $(PYTHON) -m pytest tests/helm $(ARGS)

test-cluster: setup ## the chart on a real API server and a thousand paper nodes; builds the programs once, with Go
	tests/cluster/build_programs.sh
	AUTOGLM_ASKED_FOR=cluster $(PYTHON) -m pytest tests/cluster -s $(ARGS)

test-node: setup ## streams on a real node that survive rollouts; root, containerd and 10 GB of memory
	tests/cluster/build_programs.sh
	tests/node/run.sh $(PYTHON) $(ARGS)

test-gpu: setup ## the tests that need an NVIDIA GPU
	$(PYTHON) -m pytest -m gpu $(ARGS)

bench-gpu: setup ## tokens per second on an NVIDIA GPU, by precision, batch and exit mode
	$(PYTHON) benchmarks/gpu.py $(ARGS)

bench: setup ## every benchmark in benchmarks/ that needs no GPU, one after the other
	$(foreach script,$(sort $(filter-out benchmarks/gpu.py benchmarks/locustfile.py,$(wildcard benchmarks/*.py))),$(PYTHON) $(script) &&) true

constraints: setup ## resolve constraints.txt anew; ARGS=--upgrade takes the newest versions
	scripts/compile_constraints.sh $(ARGS)

proto: setup ## generate the gRPC stubs anew
	$(PYTHON) -m grpc_tools.protoc -I protocol --python_out=protocol --pyi_out=protocol --grpc_python_out=protocol protocol/autoglm_protocol/grpc/autoglm.proto

clean: ## remove .venv, caches and build output
	rm -rf .venv .cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
