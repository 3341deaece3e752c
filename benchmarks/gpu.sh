#!/usr/bin/env bash
# Everything that needs a GPU, stage by stage, on a bare machine: bash benchmarks/gpu.sh FOLDER. See benchmarks/gpu/__init__.py.
cd "$(dirname "$0")/.." && exec "${PYTHON:-python3}" -m benchmarks.gpu "$@"
