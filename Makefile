# Each target does all of its own set-up in a fresh clone. It needs Python 3.10
# to 3.12 with pip; PYTHON=python3.12 chooses another than python3.

PYTHON ?= python3
VENV := .venv
ONEDL := .venv-onedl
# Two processes with one thread each take half the time of one with two.
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(1)/bin/python -m pytest -n $(WORKERS) --dist worksteal

.PHONY: demo test test-onedl lint install clean

demo: $(VENV)/installed
	$(VENV)/bin/python demo/demo.py

test: $(VENV)/installed
	$(call PYTEST,$(VENV))

# The same tests on the maintained onedl-* forks; PYTEST_ARGS chooses among them.
test-onedl: $(ONEDL)/installed
	$(call PYTEST,$(ONEDL)) $(PYTEST_ARGS)

lint: $(VENV)/installed
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

install: $(VENV)/installed

$(VENV)/installed: setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[lite,dev]'
	touch $@

# torch is the large part of an installation: the second environment takes it,
# as hard links, from the first. It also holds transformers, beside which mmpretrain
# imports only through mmravlt.compat.multimodal, as many a user's environment does.
$(ONEDL)/installed: $(VENV)/installed
	rm -rf $(ONEDL)
	$(PYTHON) -m venv $(ONEDL)
	cp -alf $(VENV)/lib/python3.*/site-packages/. $(ONEDL)/lib/python3.*/site-packages/
	$(ONEDL)/bin/python -m pip uninstall -y \
	    mmengine mmcv-lite mmdet mmsegmentation mmpretrain
	$(ONEDL)/bin/python -m pip install -c constraints.txt -e '.[onedl,dev]' transformers
	touch $@

clean:
	rm -rf $(VENV) $(ONEDL)
