# The project's tasks. `make` alone lists them.
SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
TIER ?=
REQUIRE ?=

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  \033[1mmake %-13s\033[0m %s\n", $$1, $$2}'

LOCKS := requirements/worker.txt requirements/operator.txt requirements/dev.txt
.venv/ready: requirements/bootstrap.txt $(LOCKS) inference/pyproject.toml operator/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $$($(PYTHON) --version) is too old: ddpm-ray needs Python 3.11 or newer (make PYTHON=python3.12 ...)" >&2; exit 2; }
	@echo "setting up .venv (once; a few GB, most of it torch)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bootstrap.txt
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes $(addprefix -r ,$(LOCKS))
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e inference -e operator
	@touch $@

.PHONY: setup
setup: .venv/ready ## Set up .venv; every other target does this when needed

.PHONY: sample
sample: .venv/ready ## Draw 100 digits on a local Ray into out/ (ARGS="--n_samples 16 --sampler ddim")
	@$(BIN)/ddpm-sample --model_path builtin://mnist --ray_address None --steps 100 $(ARGS)

.PHONY: test
test: .venv/ready ## Run all tests that this machine can run (TIER=unit|slow|chains|tooling|ray|cluster|long|machine, REQUIRE=cluster)
	@$(BIN)/python tests/tiers.py $(if $(TIER),--tier $(TIER)) $(if $(REQUIRE),--require $(REQUIRE))

.PHONY: test-long
test-long: .venv/ready ## Run the tests that take minutes: tooling, whole chains, traces of a node on this machine, long cluster tests
	@$(BIN)/python tests/tiers.py --tier tooling --tier chains --tier machine --tier long

.PHONY: lint
lint: .venv/ready ## Check format, code, types, import borders, spelling, shell scripts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@git ls-files -z --cached --others --exclude-standard | xargs -0 $(BIN)/codespell
	@git ls-files -z --cached --others --exclude-standard | xargs -0 $(BIN)/codespell --dictionary hack/words.txt --regex '[A-Za-z]+'
	@git ls-files -z --cached --others --exclude-standard | xargs -0 grep -lIE '^(#!.*\b(ba)?sh\b|# shellcheck shell=)' | xargs $(BIN)/shellcheck --severity=style

.PHONY: format
format: .venv/ready ## Format the code and apply the linter's fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: images
images: ## Build both images and push them to the local cluster, if one runs
	@hack/images/build worker
	@hack/images/build operator

.PHONY: cluster-up
cluster-up: ## Start a local cluster with KubeRay, the images and the operator
	@./kind-setup.sh

.PHONY: cluster-down
cluster-down: ## Delete the local cluster
	@./kind-setup.sh --delete

.PHONY: bench
bench: .venv/ready ## Run the local benchmarks, about ten minutes; results go to docs/benchmarks.md
	@for each in network noise guide memory; do $(BIN)/python benchmarks/$$each.py; done

.PHONY: bench-cluster
bench-cluster: .venv/ready ## Benchmark the operator on the cluster of `make cluster-up`: time against a RayJob, lag of its status
	@for each in rayjob progress; do PYTHONPATH=. $(BIN)/python benchmarks/$$each.py $(ARGS) || exit; done

.PHONY: bench-node
bench-node: .venv/ready ## Benchmark start and stop of the node without Docker; none may run
	@$(BIN)/python benchmarks/node.py

# 380 s of sections after the start. ARGS=--smoke runs on the CPU what needs no GPU.
.PHONY: bench-gpu
bench-gpu: .venv/ready ## Check and benchmark the GPU path on a GPU of this machine (ARGS=--smoke: on the CPU)
	@$(BIN)/python benchmarks/gpu/check.py $(ARGS)

HOSTILE := tests/unit/operator/test_hostile_input.py tests/unit/inference/test_hostile_documents.py tests/cluster/test_hostile_input.py
.PHONY: hostile
hostile: .venv/ready ## Try 10,000 hostile samplings and documents, also on the cluster of `make cluster-up`
	@HOSTILE_SAMPLINGS=10000 $(BIN)/python -m pytest -n 2 $(HOSTILE)

# In a separate folder: Ray imports some of these packages if it finds them, which costs each of its processes a second.
.venv/security: .venv/ready requirements/security.txt
	@rm -rf $@
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes --target $@ -r requirements/security.txt
	@touch $@
WITH_SECURITY := PYTHONPATH=.venv/security $(BIN)/python
FOR ?= 60
.PHONY: fuzz
fuzz: .venv/security ## Fuzz the parsers of untrusted input, guided by coverage (FOR=60 seconds each)
	@$(WITH_SECURITY) -m tests.fuzz $(FOR)

.PHONY: sbom
sbom: build/worker.cdx.json build/operator.cdx.json | .venv/security ## Write the SBOMs of both images to build/ and validate them
	@$(WITH_SECURITY) -m hack.images.sbom --check $^
build/%.cdx.json: .venv/ready
	@mkdir -p build
	@$(BIN)/python -m hack.images.sbom $* >$@

.PHONY: audit
audit: .venv/security ## Look up known vulnerabilities of the locks (PyPI), the images (Debian) and the Go programs of tests
	@$(WITH_SECURITY) -m hack.audit

.PHONY: clean
clean: ## Remove .venv, caches and out/
	rm -rf .venv build out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
