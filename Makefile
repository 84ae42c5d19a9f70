.PHONY: demo test chaos fuzz lint man install clean

VENV ?= .venv
PYTHON := $(VENV)/bin/python

demo: $(VENV)/installed-demo
	$(PYTHON) tools/demo.py

test: $(VENV)/installed-dev lint
	$(PYTHON) -m pytest

# Ten thousand pictures, two hundred kills; MASKDROP_CHAOS_PICTURES, MASKDROP_CHAOS_KILLS and MASKDROP_SEED.
chaos: $(VENV)/installed-dev
	$(PYTHON) -m pytest tests/chaos -m chaos -n 0 -s

# Damaged pictures through the daemon; MASKDROP_FUZZ sets how many, MASKDROP_SEED which.
fuzz: $(VENV)/installed-dev
	MASKDROP_FUZZ=$${MASKDROP_FUZZ:-20000} $(PYTHON) -m pytest tests/test_fuzz.py -s --numprocesses=0

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy daemon tools tests bench

# The manual page, from the command line's own help.
man: $(VENV)/installed-dev
	$(PYTHON) tools/man.py

install: $(VENV)/installed-demo

$(VENV)/installed-%: pyproject.toml constraints.txt tools/install.sh
	sh tools/install.sh $(VENV) $*
	touch $@

clean:
	rm -rf $(VENV) .demo build
