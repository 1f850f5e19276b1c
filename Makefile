# `make help` lists what can be made. Each target does its own set-up; nothing is installed outside .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# A sourced ROS distribution, or another environment's ROS wheels, must not leak into ours.
unexport PYTHONPATH PYTHONHOME LD_LIBRARY_PATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH
unexport RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE

# What is copied into .venv or decides what goes there; the package's own modules are used where they lie.
SOURCES := setup.py pyproject.toml package.xml nre_ros/__init__.py scripts/setup.sh \
    $(wildcard requirements/* config/* launch/*.py scripts/nre_* tools/tf2_msgs/* tools/tf2_msgs/msg/*)

.PHONY: help setup test lint demo bench bench-estimator report clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(VENV)/.complete ## everything into .venv, with the command .venv/bin/nre_ros; PYTHON=python3.12 names the Python

$(VENV)/.complete: $(SOURCES)
	scripts/setup.sh $(PYTHON) $(VENV)
	@touch $@

lint: setup ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

test: lint ## style, types and tests; NRE_ROS_DATA=FOLDER adds the tests on real images
	$(BIN)/python -m pytest

demo: setup ## rendered world, map, localizer node over DDS, comparison with the truth
	$(BIN)/nre_ros demo

bench: setup ## time and size on this machine
	$(BIN)/nre_ros bench

bench-estimator: setup ## the pose estimator beside others on synthetic loss maps
	$(BIN)/nre_ros bench-estimator

# the scenes of the evaluation data whose poses have no unit, which their calibration files do not tell
REPORT ?= --without-unit aerial_village fox terrace

report: setup ## all evaluation scenes under NRE_ROS_DATA=FOLDER as pages in report_out; goes on where it was stopped
	$(BIN)/nre_ros report $(REPORT)

MINUTES ?= 30
soak: setup ## the real node under bad input, faults, signals and a long replay; MINUTES=5 shortens the replay
	$(BIN)/python test/soak.py --minutes $(MINUTES)

clean: ## forget the virtual environment and everything built
	rm -rf $(VENV) build install log *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find nre_ros test -name __pycache__ -type d -exec rm -rf {} +
