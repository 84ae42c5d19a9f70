.PHONY: demo test bench chaos fuzz documented lint man reference docs install deb image clean

VENV ?= .venv
PYTHON := $(VENV)/bin/python

demo: $(VENV)/installed-demo
	$(PYTHON) tools/demo.py

# Compiled first: the tests start some thousand processes, and if PYTHONDONTWRITEBYTECODE is set, each would
# compile for itself.
test: $(VENV)/installed-dev lint
	$(PYTHON) -m compileall -q daemon tests
	$(PYTHON) -m pytest

# All programs on the same pictures; BENCH="--pictures 40 --repeats 1 --only throughput" for a short look.
bench: $(VENV)/installed-dev
	$(PYTHON) bench/run.py $(BENCH)

# Ten thousand pictures, two hundred kills; MASKDROP_CHAOS_PICTURES, MASKDROP_CHAOS_KILLS and MASKDROP_SEED.
chaos: $(VENV)/installed-dev
	MASKDROP_EXEC=1 $(PYTHON) -m pytest tests/chaos -m chaos -n 0 -s

# Damaged pictures through the daemon; MASKDROP_FUZZ sets how many, MASKDROP_SEED which.
fuzz: $(VENV)/installed-dev
	MASKDROP_FUZZ=$${MASKDROP_FUZZ:-20000} $(PYTHON) -m pytest tests/test_fuzz.py -s --numprocesses=0

# The documented commands that the suite leaves out because they take long, each with less to do.
documented: $(VENV)/installed-dev
	$(PYTHON) -m pytest tests/test_commands_in_short.py -m "long or not long" -n 0

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy daemon tools tests bench

# The manual page, from the command line's own help.
man: $(VENV)/installed-dev
	$(PYTHON) tools/man.py

# Pages of docs/reference, from the code.
reference: $(VENV)/installed-dev
	$(PYTHON) tools/reference.py

# The documentation as a site, in build/site; open build/site/index.html.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

install: $(VENV)/installed-demo

# Into dist/. DEB_LIBRARIES=linked leaves torch out, to try the package on this machine.
DEB_LIBRARIES ?= bundled
DEB_PYTHON ?= /usr/bin/python3

deb: $(VENV)/installed-demo
	$(PYTHON) tools/make_deb.py --libraries $(DEB_LIBRARIES) --python $(DEB_PYTHON)

# podman or docker.
CONTAINER ?= podman

image:
	$(CONTAINER) build $(if $(filter podman,$(notdir $(CONTAINER))),--format docker) -f Containerfile -t maskdrop .

$(VENV)/installed-%: pyproject.toml constraints.txt tools/install.sh
	sh tools/install.sh $(VENV) $*
	touch $@

clean:
	rm -rf $(VENV) .demo build dist
