#!/usr/bin/env bash
# Everything that needs a GPU, in one call on a bare machine with torch, Triton, nvcc and pytest-benchmark, and no network:
# builds the extension, runs the gpu tests and compute-sanitizer, the benchmarks, and prints a short table last.
#   bash benchmarks/gpu.sh [FOLDER of the results, default benchmarks/results]
set -uo pipefail
cd "$(dirname "$0")/.."
out="${1:-benchmarks/results}"
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
failed=0

# In place: `iidm.kernels` is the folder kernels/.
ln -sfn ../kernels iidm/kernels
IIDM_CUDA=1 python setup.py --quiet build_ext --inplace || exit 1
python -c 'from iidm.kernels import build_info, set_implementation; print(build_info()); print(set_implementation("fused"))'

timeout 200 python -m pytest tests/kernels -m gpu -q -p no:cacheprovider > "$out/gpu-tests.txt" 2>&1 || failed=1
tail -n 5 "$out/gpu-tests.txt"
# Only the project's own kernels: torch's allocator keeps freed memory, so leaks are not looked for.
timeout 120 compute-sanitizer --kernel-name regex:'iidm|kernel_' --error-exitcode 9 \
    python -m pytest tests/kernels/test_determinism.py -m gpu -q -k 'written and 63' -p no:cacheprovider \
    > "$out/gpu-sanitizer.txt" 2>&1 || failed=1
tail -n 3 "$out/gpu-sanitizer.txt"
timeout 300 python -m pytest benchmarks/bench_kernels.py -m gpu -q -p no:cacheprovider \
    --benchmark-json "$out/gpu-kernels.json" > "$out/gpu-benchmarks.txt" 2>&1 || failed=1
tail -n 3 "$out/gpu-benchmarks.txt"
python -m benchmarks.report "$out/gpu-kernels.json" || failed=1
exit "$failed"
