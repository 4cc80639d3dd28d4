# demo and test make their own environments; nothing else has to be done first.
PYTHON ?= python3
DEMO = .venv/bin
TEST = .venv-test/bin

.PHONY: demo test check style clean

demo: .venv/ready  ## build the INT8 engine and run it on a short clip; see demo/
	$(DEMO)/edgesod demo --out demo

test: .venv-test/ready .venv-test/packages  ## run every test
	$(TEST)/python -m pytest

check: .venv-test/ready  ## lint and type-check
	$(TEST)/ruff format --check .
	$(TEST)/ruff check .
	$(TEST)/mypy

style: .venv-test/ready  ## format and fix what can be fixed
	$(TEST)/ruff format .
	$(TEST)/ruff check --fix .

.venv/ready: setup.py
	$(PYTHON) -m venv .venv
	$(DEMO)/pip install -q -e .
	touch $@

# torch first and at one version, so that every machine tests the same; pysodmetrics without its dependencies, because it
# asks for opencv-python-headless, which overwrites opencv-python's files.
.venv-test/ready: setup.py
	$(PYTHON) -m venv .venv-test
	$(TEST)/pip install -q torch==2.13.0
	$(TEST)/pip install -q -e ".[train,dev]"
	$(TEST)/pip install -q --no-deps pysodmetrics==1.6.2
	touch $@

.venv-test/packages: tests/system-packages.txt | .venv-test/ready
	sh scripts/system_packages.sh $<
	touch $@

clean:
	rm -rf .venv .venv-test demo build *.egg-info
