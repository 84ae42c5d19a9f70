.PHONY: demo test fuzz lint install clean

VENV ?= .venv
PYTHON := $(VENV)/bin/python

demo: $(VENV)/installed-demo
	$(PYTHON) tools/demo.py

test: $(VENV)/installed-dev lint
	$(PYTHON) -m pytest

# Damaged pictures through the daemon; MASKDROP_FUZZ sets how many, MASKDROP_SEED which.
fuzz: $(VENV)/installed-dev
	MASKDROP_FUZZ=$${MASKDROP_FUZZ:-20000} $(PYTHON) -m pytest tests/test_fuzz.py -s --numprocesses=0

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy daemon tools tests

install: $(VENV)/installed-demo

$(VENV)/installed-%: pyproject.toml constraints.txt tools/install.sh
	sh tools/install.sh $(VENV) $*
	touch $@

clean:
	rm -rf $(VENV) .demo build
