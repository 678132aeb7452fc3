# Everything runs in .venv, made here on a fresh machine with Python 3.11 or later.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
export OMP_NUM_THREADS ?= 2

.PHONY: help install quick test lint docs demo lidc gpu gpu-train clean

help:
	@echo "make demo   phantoms, a short training, reconstruction of unseen phantoms, table and figure: in demo/"
	@echo "make lidc   LIDC-IDRI from the network (128 GB), one bundle trained on it, leaderboard: in data/lidc/"
	@echo "make quick  linter, type checker and the quick tests: for every commit"
	@echo "make test   linter, type checker, documents and all tests"
	@echo "make docs   the documents of docs/ and of the library, in build/docs/"
	@echo "make gpu        tests, speed and memory on a GPU, by python3 as it is, in at most 8 minutes: in build/gpu/"
	@echo "make gpu-train  7 minutes of training on a GPU, and its evaluation: in build/gpu_train/"
	@echo "make clean  remove .venv, demo/ and build/"

install: $(VENV)/installed

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,docs]'
	touch $@

lint: install
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

# The pages' source folder is the whole checkout, so that their links are the same in both.
docs: install
	rm -rf docs/api
	$(RUN) sphinx --quiet --fail-on-warning --keep-going --builder html --conf-dir docs . build/docs
	@echo "wrote build/docs/docs/index.html"

# A test process for each core. Each computes on one thread: the networks are tiny, and on busy cores threads that wait
# for each other take up to nine times as long.
quick test: export OMP_NUM_THREADS = 1
PYTEST := $(RUN) pytest --numprocesses auto --dist worksteal

# Without what is marked slow; shows what took longest of the others.
quick: lint
	$(PYTEST) -m "not slow" --durations 5

test: lint docs
	$(PYTEST)

DEMO ?= demo
PATHS := --datalist $(DEMO)/phantoms/datalist.json --ckpt_path $(DEMO)/model.pt

demo: install
	@echo "[1/5] 150 thorax phantoms with two radiographs each"
	$(RUN) trct_monai phantoms --output $(DEMO)/phantoms --size 64 --radiograph_size 128 --split 120/10/20
	@echo "[2/5] a short training of direct_regression; the first validation is the mean volume's score"
	$(RUN) trct_monai run direct_regression+small+demo training $(PATHS) --output_dir $(DEMO)/training
	@echo "[3/5] reconstruction of 20 phantoms that the network has not seen"
	$(RUN) trct_monai run direct_regression+small $(PATHS) --output_dir $(DEMO)/predictions
	@echo "[4/5] scores beside the mean volume, pictures, and a report to scroll through"
	$(RUN) trct_monai evaluate --predictions $(DEMO)/predictions --datalist $(DEMO)/phantoms/datalist.json \
		--output $(DEMO)/evaluation --name direct_regression
	$(RUN) trct_monai report --evaluation $(DEMO)/evaluation
	@echo "[5/5] one of them by the weights that come with any_view, with intervals"
	$(RUN) trct_monai reconstruct --out $(DEMO)/reconstruction/ct.nii.gz \
		--pa $(DEMO)/phantoms/phantom_000130/phantom_000130_pa_drr.png \
		--lat $(DEMO)/phantoms/phantom_000130/phantom_000130_lat_drr.png

# Variables: examples/lidc.sh. It goes on where it stopped.
lidc: install
	PYTHON=$(VENV)/bin/python examples/lidc.sh

# A GPU's own Python, which has PyTorch for it, not the one of .venv.
gpu gpu-train: export PYTHONPATH := .:$(PYTHONPATH)

gpu:
	$(PYTHON) benchmarks/gpu.py --output build/gpu

gpu-train:
	$(PYTHON) benchmarks/gpu_train.py --output build/gpu_train

clean:
	rm -rf $(VENV) demo build docs/api
