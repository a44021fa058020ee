# make test    everything; as root it tests real sandboxes, otherwise what needs no privilege
# make demo    compiles a real program in a sandbox and shows what came of it (as root)
# make bench   prints the table of docs/benchmarks.md (as root)
# make install    puts client and daemon below PREFIX (/usr/local), with units, man pages, completions
# make uninstall  removes exactly that; a changed configuration stays
# make deb     makes the Debian package dist/cupola_<version>_<architecture>.deb
# make clean   removes what these have made here

# Debian's own interpreter: one below somebody's home could not serve other users.
PYTHON := /usr/bin/python3
VENV := .venv
INSTALLED := $(VENV)/.installed

# Where `make install` puts things, below DESTDIR if that is given. The configuration is always
# in /etc/cupola, where the daemon looks for it.
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
DATADIR ?= $(PREFIX)/share
UNITDIR ?= $(LIBDIR)/systemd/system
ZSHDIR ?= $(DATADIR)/zsh/site-functions
PLACES := --root '$(DESTDIR)/' --bin '$(BINDIR)' --lib '$(LIBDIR)' --share '$(DATADIR)' \
    --units '$(UNITDIR)' --zsh '$(ZSHDIR)'

WHEELS := build/wheels
INSTALLER := $(VENV)/bin/python systemd/install
# The moment that the files of the package are from; with it, the package is reproducible.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct)
DIST ?= dist

.PHONY: test demo bench install uninstall deb clean packages

test: $(INSTALLED)
	$(VENV)/bin/python -m pytest $(ARGS)

demo: $(INSTALLED)
	$(VENV)/bin/python docs/demo/demo.py $(ARGS)

bench: $(INSTALLED)
	$(VENV)/bin/python benchmarks/run.py $(ARGS)

install: $(WHEELS)
	$(INSTALLER) install $(PLACES) --wheels $(WHEELS) --python $(PYTHON)

uninstall:
	$(PYTHON) systemd/install/uninstall.py $(PLACES)

deb: $(WHEELS)
	$(INSTALLER) deb --wheels $(WHEELS) --python $(PYTHON) --into '$(DIST)' \
	    --epoch $(SOURCE_DATE_EPOCH)

packages:
	@.ci/install-packages

$(INSTALLED): pyproject.toml .ci/constraints.txt .ci/packages.txt | packages
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --use-pep517 \
	    --constraint .ci/constraints.txt --editable '.[daemon,dev]'
	touch $@

$(WHEELS): $(INSTALLED)
	$(INSTALLER) wheels --wheels $@
	touch $@

clean:
	rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	rm -rf build dist *.egg-info client/*.egg-info
	find client daemon tests benchmarks docs -name __pycache__ -type d -exec rm -rf {} +
