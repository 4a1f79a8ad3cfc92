# What one does with skerry. `make help` lists it. Everything works on a fresh Debian 12 with Python 3.11, make and git, as root or with sudo.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help demo dev lint arrows audit type test attacks faults kernel compat bench bench-requests docs images probe service-images engine gvisor engine-stop clean

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.complete
CODE := algorithm-sdk server node proxy
BENCHES := noop_task latency rounds start_rate size server_requests idle vpn recovery throughput nodes probe_table
MORE := $(wildcard examples bench tests docker docs)
# A virtual environment knows its own path: one that was made elsewhere is made anew.
$(shell [ "$$(cat $(READY) 2>/dev/null)" = "$(CURDIR)" ] || rm -f $(READY))

help: ## this list
	@sed -n 's/^\([a-z%-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 18

demo: ## two federated analyses of real data on three nodes, compared with the pooled data
	@$(MAKE) --no-print-directory $(READY) || { echo "demo: failed the virtual environment could not be made; the lines above say why."; exit 1; }
	docker/as-root.sh $(PYTHON) examples/demo.py

dev: $(READY) ## the virtual environment with everything, and the pre-commit hooks
	@[ ! -d .git ] || $(PYTHON) -m pre_commit install >/dev/null
	echo "dev: ready; now: source $(VENV)/bin/activate"

lint: $(READY) arrows audit ## ruff, bandit, codespell, deptry, import-linter, pip-audit
	@echo "lint: ruff"; $(PYTHON) -m ruff check --quiet .; $(PYTHON) -m ruff format --check --quiet .
	echo "lint: bandit"; $(VENV)/bin/bandit -q -c pyproject.toml -r $(CODE) 2>build/bandit.log || { cat build/bandit.log; exit 1; }
	echo "lint: codespell"; $(VENV)/bin/codespell $(CODE) $(MORE) *.md Makefile

arrows: $(READY)
	@echo "lint: import-linter"; $(VENV)/bin/lint-imports >build/imports.log || { cat build/imports.log; exit 1; }
	echo "lint: deptry"; $(PYTHON) docker/requirements.py setup.cfg data client server postgresql s3 metrics node proxy >build/requirements.txt
	$(VENV)/bin/deptry $(CODE) >build/deptry.log 2>&1 || { cat build/deptry.log; exit 1; }

audit: $(READY)
	@echo "lint: pip-audit"; $(PYTHON) docker/audit.py

type: $(READY) ## mypy, strict
	@echo "type: mypy"; $(PYTHON) -m mypy

test: $(READY) ## every test; needs a Docker engine and starts one if it may
	@if docker/engine.sh start; then docker/as-root.sh $(MAKE) --no-print-directory images; else [ $$? = 3 ]; fi
	docker/as-root.sh tests/programs.sh
	docker/as-root.sh $(PYTHON) -m pytest $(TESTS)

attacks: $(READY) ## attacks on a running system; each is refused, and succeeds where just that one defence is taken away
	@$(MAKE) --no-print-directory test TESTS=tests/attacks

faults: $(READY) ## runs while everything is killed, cut off and lied to, on a Docker engine of its own; RUNS= for another number
	@docker/as-root.sh tests/programs.sh
	PYTHONPATH=tests docker/as-root.sh $(PYTHON) tests/faults/fault_run.py

kernel: $(READY) ## the VPN's tests on the kernel's own WireGuard, in a virtual machine with Debian's kernel
	@docker/as-root.sh tests/programs.sh
	docker/as-root.sh tests/kernel/run.sh

compat: $(READY) images ## vantage6's published clients and images, every call; permissions and API against their contracts
	@docker/as-root.sh $(PYTHON) tests/compat/run.py

bench: $(READY) images ## what skerry adds on top of the engine, measured side by side; one of them: make bench-NAME
	@for name in $(BENCHES); do PYTHONPATH=tests docker/as-root.sh $(PYTHON) bench/$$name.py; done

bench-requests: bench-server_requests

bench-%: $(READY) images
	@PYTHONPATH=tests docker/as-root.sh $(PYTHON) bench/$*.py

probe: $(READY) images ## what can be done inside a container: Docker's default, skerry, gVisor, side by side
	@docker/as-root.sh $(PYTHON) bench/probe_table.py

docs: $(READY) ## generate the reference pages and check every link
	@$(PYTHON) docs/build.py

images: $(READY) engine ## the images that algorithms need: base, holder, the examples
	@docker/images.sh
	for example in examples/*/Dockerfile; do
	    folder=$$(dirname $$example); echo "images: $$folder" >&2
	    $(VENV)/bin/skerry algorithm build $$folder --tag skerry/$$(basename $$folder) >/dev/null
	done

service-images: $(READY) engine ## images of server, proxy and node, for docker/compose.yaml
	@docker/images.sh server proxy node

engine: ## a Docker engine: the one that answers, or one of our own
	@docker/engine.sh start

gvisor: engine ## gVisor as a runtime of the engine that `make engine` started
	@docker/engine.sh gvisor

engine-stop: ## stop the engine, if `make engine` started it
	@docker/engine.sh stop

clean: ## remove what was made here (not the images, nor the engine)
	@[ ! -x $(VENV)/bin/skerry ] || $(VENV)/bin/skerry dev down --all || true
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(READY): setup.cfg pyproject.toml
	@python=
	for candidate in python3.11 python3.12 python3.13 python3; do
	    if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi
	done
	[ -n "$$python" ] || { echo "venv: Python 3.11 or newer is missing; on Debian 12 run: apt-get install python3" >&2; exit 1; }
	docker/venv.sh $$python $(VENV)
	mkdir -p build
	echo "$(CURDIR)" >$@
