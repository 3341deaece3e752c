#!/usr/bin/env bash
# Everything that needs a GPU, on a bare machine with torch, Triton, nvcc and pytest-benchmark, without network:
#   bash benchmarks/gpu.sh FOLDER [STAGE...]
# Stages: build (the extension), tests (those marked gpu), sanitize (compute-sanitizer on all ops), bench, compile (the
# benchmarks of torch.compile, which take longest), step (tests and benchmarks of whole training steps), loader (tests and
# benchmarks of the data path) and long (2,000 steps of gta5-cityscapes-100 on generated data), both where DALI is
# installed, report (the tables, printed last). Without stages all of them, in about half an hour; each alone takes less
# than nine minutes. What each prints goes to FOLDER, and its last lines to the screen.
# IIDM_CUDA_ARCHS=90 builds for one architecture; IIDM_COMMIT names the commit where git is not at hand.
set -uo pipefail
cd "$(dirname "$0")/.."
out="${1:?the folder for the results, for example benchmarks/results}"
shift
stages=" ${*:-build tests sanitize bench compile step loader long report} "
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
python="${PYTHON:-python3}"
failed=0

wants() { [[ "$stages" == *" $1 "* ]]; }
# SECONDS NAME COMMAND...: SIGINT at the limit, so that pytest still writes what it has.
limited() {
    local seconds="$1" name="$2"
    shift 2
    timeout -s INT -k 15 "$seconds" "$@" > "$out/gpu-$name.txt" 2>&1 || failed=1
    tail -n 4 "$out/gpu-$name.txt"
}

ln -sfn ../kernels iidm/kernels # in place: `iidm.kernels` is the folder kernels/
if wants build; then
    IIDM_CUDA=1 "$python" setup.py --quiet build_ext --inplace > "$out/gpu-build.txt" 2>&1 || { tail -n 20 "$out/gpu-build.txt"; exit 1; }
fi
"$python" -c 'from iidm.kernels import build_info, set_implementation; print(build_info()); print(set_implementation("fused"))' || exit 1

if wants tests; then
    workers=()
    "$python" -c 'import xdist' 2> /dev/null && workers=(-n 8)
    limited 200 tests "$python" -m pytest tests/kernels -m gpu -q -p no:cacheprovider "${workers[@]}"
fi
if wants sanitize; then
    # Without torch's cache of memory, in which an overrun would stay inside an allocation; the project's kernels alone.
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 limited 120 sanitizer compute-sanitizer --report-api-errors no --error-exitcode 9 \
        --kernel-name regex='iidm|cross_entropy_kernel|pseudo_label_kernel|finish_|add_planes_kernel|sums_kernel|normalize_kernel|gradient_kernel' \
        "$python" -m pytest tests/kernels/test_determinism.py -m gpu -q -k 'written and size1' -p no:cacheprovider
fi
if wants bench; then
    limited 150 bench "$python" -m pytest benchmarks/bench_kernels.py -m gpu -q -k 'fused or eager' \
        -p no:cacheprovider --benchmark-json "$out/gpu-kernels.json"
fi
if wants compile; then
    limited 240 compile "$python" -m pytest benchmarks/bench_kernels.py -m gpu -q -k 'compile' \
        -p no:cacheprovider --benchmark-json "$out/gpu-kernels-compile.json"
fi
if wants step; then
    limited 120 step-tests "$python" -m pytest tests/method tests/models -m gpu -q -p no:cacheprovider
    limited 400 step "$python" -m pytest benchmarks/bench_step.py -m gpu --long -q -p no:cacheprovider \
        --benchmark-json "$out/gpu-step.json"
fi
if wants loader; then
    if "$python" -c 'import nvidia.dali, tyro' 2> "$out/gpu-loader.txt"; then
        limited 60 loader-tests "$python" -m pytest tests/data -m gpu -q -p no:cacheprovider
        limited 240 loader "$python" -m pytest benchmarks/bench_loader.py benchmarks/bench_prepare.py -q \
            -k 'cuda or index or start or prepare' -p no:cacheprovider --benchmark-json "$out/gpu-loader.json"
    else
        echo "loader: needs nvidia-dali-cuda130 and tyro: $(tail -n 1 "$out/gpu-loader.txt")"
    fi
fi
if wants long; then
    if "$python" -c 'import nvidia.dali, tyro' 2> "$out/gpu-long.txt"; then
        limited 500 long "$python" -m benchmarks.long_run "$out" --steps "${IIDM_STEPS:-2000}"
        rm -rf "$out/run/checkpoints"
    else
        echo "long: needs nvidia-dali-cuda130 and tyro: $(tail -n 1 "$out/gpu-long.txt")"
    fi
fi
if wants report; then
    if compgen -G "$out/gpu-kernels*.json" > /dev/null; then
        "$python" -m benchmarks.report "$out"/gpu-kernels*.json || failed=1
    fi
    if [[ -e "$out/gpu-step.json" ]]; then "$python" -m benchmarks.report_step "$out/gpu-step.json" || failed=1; fi
    if [[ -e "$out/gpu-loader.json" ]]; then "$python" -m benchmarks.report_loader "$out/gpu-loader.json" || failed=1; fi
fi
exit "$failed"
