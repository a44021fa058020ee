# make test    everything; as root it tests real sandboxes, otherwise what needs no privilege
# make demo    compiles a real program in a sandbox and shows what came of it (as root)
# make bench   prints the table of docs/benchmarks.md (as root)
# make clean   removes what these have made here

# Debian's own interpreter: one below somebody's home could not serve other users.
PYTHON := /usr/bin/python3
VENV := .venv
INSTALLED := $(VENV)/.installed

.PHONY: test demo bench clean packages

test: $(INSTALLED)
	$(VENV)/bin/python -m pytest $(ARGS)

demo: $(INSTALLED)
	$(VENV)/bin/python docs/demo/demo.py $(ARGS)

bench: $(INSTALLED)
	$(VENV)/bin/python benchmarks/run.py $(ARGS)

packages:
	@.ci/install-packages

$(INSTALLED): pyproject.toml .ci/constraints.txt .ci/packages.txt | packages
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --use-pep517 \
	    --constraint .ci/constraints.txt --editable '.[daemon,dev]'
	touch $@

clean:
	rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	rm -rf build dist *.egg-info client/*.egg-info
	find client daemon tests benchmarks docs -name __pycache__ -type d -exec rm -rf {} +
