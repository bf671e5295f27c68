# `make demo` and `make test` start from nothing; both first make the environment in .venv.

PYTHON ?= python3
BIN := .venv/bin
DEMO := output/demo

.PHONY: env demo test check overnight fuzz lint clean
.DELETE_ON_ERROR:

env: .venv/ready

.venv/ready: requirements.txt pyproject.toml tools/install_detectron2.py
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "error: Python 3.11 or newer is needed; name one with `make PYTHON=python3.12 ...`")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --requirement requirements.txt
	$(BIN)/python tools/install_detectron2.py
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	touch $@

# The demo draws its images here, also where another folder of datasets is set.
demo: export DETECTRON2_DATASETS := datasets
demo: env
	$(BIN)/python train_net.py --config-file configs/atss_R_10_FPN_demo.yaml --resume OUTPUT_DIR $(DEMO)
	$(BIN)/python demo/demo.py --config-file $(DEMO)/config.yaml --input 'datasets/shapes/val/00000[0-7].jpg' \
		--output $(DEMO)/predictions --opts MODEL.WEIGHTS $(DEMO)/model_final.pth
	@echo
	@echo "The AP table stands above; the same figures are in $(DEMO)/metrics.json."
	@echo "Images with the detector's boxes: $(DEMO)/predictions"

# Two processes, each of which takes a file of tests at a time.
WORKERS ?= 2
test: env
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

# What someone who changes a line runs: style, and the tests that take no time.
check: lint
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile -m "not slow"

# A million random grids and batches for the assigner, against Algorithm 1: a few hours.
overnight: env
	$(BIN)/python -m pytest tests/modeling/assigners/test_atss.py -k every_grid --hypothesis-profile=overnight -p no:logging

# Each of the three targets a third of the time, in seconds; what it finds is in fuzz/corpus/finding-*.
FUZZ_SECONDS ?= 3600
fuzz: env
	for target in annotations checkpoints images; do \
		$(BIN)/python fuzz/$$target.py -max_total_time=$$(($(FUZZ_SECONDS) / 3)) || exit 1; \
	done

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv output datasets/shapes
