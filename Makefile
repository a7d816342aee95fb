# make run    the main job: all tables and figures, one page   (DATA=folder or CLIPS=folder, PRESET=quick|cpu|paper ENTRIES="headline" SEEDS="0 1 2" JOBS=2 NAME=...)
# make test   everything that CI checks
# make lab    JupyterLab on the notebooks
# make sync   after a change in nbs/: clean, export, README
# make book   all chapters, papers and a reference as pages to read: build/book/index.html

PYTHON  ?= python3
BIN     := .venv/bin
DATA    ?=
CLIPS   ?=
PRESET  ?= quick
ENTRIES ?= all
JOBS    ?=
SEEDS   ?= 0
DEVICE  ?= auto
NAME    ?=

.PHONY: run test lab sync book execute clean
.DEFAULT_GOAL := run

.venv/.package: settings.ini setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "vad needs Python 3.10 or newer: make PYTHON=python3.12"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv || { echo "Python's venv module is missing: install it (Debian: apt-get install python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/.dev: .venv/.package
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

.venv/.book: .venv/.package
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[book]'
	@touch $@

# notebooks merge cell by cell, and are saved without what differs by itself
.venv/.hooks: .venv/.dev
	@if [ -d .git ]; then $(BIN)/nbdev_install_hooks; fi
	@touch $@

run: .venv/.package
	@$(BIN)/vad reproduce $(ENTRIES) --preset $(PRESET) --device $(DEVICE) --seeds $(SEEDS) \
	  $(if $(DATA),--data "$(DATA)") $(if $(CLIPS),--clips "$(CLIPS)") $(if $(JOBS),--jobs $(JOBS)) $(if $(NAME),--name "$(NAME)")

test: .venv/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" bash .ci/check

lab: .venv/.hooks
	$(BIN)/jupyter lab --ServerApp.root_dir=. nbs/index.ipynb

sync: .venv/.hooks
	PATH="$(CURDIR)/$(BIN):$$PATH" bash -c 'nbdev_export && python .ci/readme.py && nbdev_clean'

book: .venv/.book
	@$(BIN)/python book/build.py

# every chapter from top to bottom, outputs kept; the papers show the published figures
execute: .venv/.dev
	cd nbs && export VAD_PROGRESS=/dev/null && for n in 00_tour.ipynb [1-6]_*/*.ipynb; do ../$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False --ExecutePreprocessor.store_widget_state=False $$n || exit 1; done
	$(BIN)/python .ci/papers.py
	$(MAKE) sync

clean:
	rm -rf .venv build dist *.egg-info
