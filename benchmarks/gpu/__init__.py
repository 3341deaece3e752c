"""Everything that needs a GPU, stage by stage, on a bare machine: torch, Triton, nvcc, pybind11, pytest, hypothesis and
pytest-benchmark, without network or git.

    bash benchmarks/gpu.sh FOLDER [STAGE...] [--seconds N] [--copy DIR] [--dry-run]

FOLDER gets what each stage prints and measures, and one page, gpu.md: what passed, the first error of what failed, the
figures. A second call with the same FOLDER goes on with what is left: a stage that passed or failed is not run again
unless it is named or the sources have changed; one that was stopped is, and so is the build on another GPU or where the
extension does not load. A stage that needs what is not installed says so: the data path needs DALI, cattrs and tyro,
nothing else does. The first four stages take less than nine minutes. The exit status is 0 if every stage, or each of
those that are named, has passed or lacks what it needs.

With --seconds N all ends within N seconds: a stage gets what is left of them, and keeps what it has when they are over;
one that would show nothing in that time is left for the next call. --copy DIR has gpu.md and everything else as
gpu.tar.gz in DIR after each stage, so that little is lost if the machine goes away. IIDM_CUDA_ARCHS=90 sets the
architectures to build for (default: the GPU's), IIDM_COMMIT names the commit where git is not at hand.

With --dry-run every stage runs on the CPU, where the tests that need a GPU are skipped, with the smallest cases of the
benchmarks. It shows that the stages run, and nothing about a GPU.
"""
