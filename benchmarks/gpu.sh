#!/usr/bin/env bash
# Everything that needs a GPU, stage by stage, on a bare machine (benchmarks/gpu/__init__.py):
#     bash benchmarks/gpu.sh FOLDER [STAGE...] [--seconds N] [--copy DIR] [--dry-run]
cd "$(dirname "$0")/.." && exec "${PYTHON:-python3}" -m benchmarks.gpu "$@"
