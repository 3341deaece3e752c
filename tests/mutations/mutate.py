"""Plants each fault of mutations.toml into a copy of its kernel and tells what finds it.

    python tests/mutations/mutate.py                 all of them, ten minutes of one core; writes found.md
    python tests/mutations/mutate.py blur            those with `blur` in their name; only prints

The checks are

    address     run_kernels.cpp under the address and undefined-behaviour sanitizers, CUDA kernels
    thread      the same under the thread sanitizer
    programs    triton_sanitizer.py and memory that nobody wrote, Triton kernels
    tests       the kernel tests with the body `emulated` or `interpreted`: they compare results, and take longer, so
                they are asked where the others find nothing

A fault that none of them finds is a missing test, unless mutations.toml says why it cannot be found.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PATHS = [str(HERE.parent / "cuda_on_cpu"), str(HERE.parent / "kernels"), str(HERE), str(ROOT)]
sys.path[:0] = PATHS

import on_cpu  # noqa: E402

# The ops whose tests and launches are run for a fault in a file of another name.
OPS = {
    "_triton_cells": ("cross_entropy", "pseudo_label"),
    "draw_classes": ("classmix",),
    "classmix": ("classmix", "jitter"),
}


class Mutation(NamedTuple):
    """One fault."""

    name: str
    file: str
    old: str
    new: str
    quick: str = ""
    """The check that finds it in every test run; empty: it is left to the command."""
    unseen: str = ""
    """Why no check can find it; empty: one must."""

    @property
    def op(self) -> str:
        """What its file is about: an op, or `_triton_cells`."""
        stem = Path(self.file).stem
        return Path(self.file).parent.name if stem == "fused_triton" else stem.removesuffix("_cuda")

    def source(self) -> str:
        """The mutated file.

        Raises:
            ValueError: the text that it replaces does not stand in the file, or more than once.
        """
        source = (ROOT / self.file).read_text()
        if (count := source.count(self.old)) != 1:
            raise ValueError(
                f"The mutation {self.name!r} replaces a text that stands {count} times in {self.file}. Write it anew"
                f" for the kernel as it is now (tests/mutations/mutations.toml):\n{self.old}"
            )
        return source.replace(self.old, self.new)


def checks_of(mutation: Mutation) -> tuple[str, ...]:
    """The checks that a fault of this file may be found by."""
    return ("address", "thread", "tests") if mutation.file.startswith("csrc/") else ("programs", "tests")


def mutations() -> list[Mutation]:
    """All of mutations.toml."""
    return [Mutation(**m) for m in tomllib.loads((HERE / "mutations.toml").read_text())["mutation"]]


@contextmanager
def planted(mutation: Mutation) -> Iterator[Path]:
    """The mutated file in a folder of its own; a .cu with all of csrc beside it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, Path(mutation.file).name)
        if mutation.file.startswith("csrc/"):
            shutil.copytree(ROOT / "csrc", folder, dirs_exist_ok=True)
        path.write_text(mutation.source())
        yield path


def found_by(check: str, mutation: Mutation) -> str:
    """What `check` says of the fault: its first complaint, or an empty string."""
    with planted(mutation) as path:
        if check == "tests":
            return by_tests(mutation, path)
        if check == "programs":
            return by_programs(mutation, path)
        program = on_cpu.Build(path.parent).program(check)
        run = on_cpu.run_program(
            program, "few", *(("jitter", "classmix") if mutation.op == "classmix" else (mutation.op,))
        )
        return "" if run.returncode == 0 else complaint(run.stderr + run.stdout)


def complaint(text: str) -> str:
    """The first complaint of a sanitizer or of what runs the kernels, and its line in csrc."""
    said = re.search(r"CUDA on the CPU: (.*)|runtime error: (.*)|Sanitizer: (SEGV|[a-z-]+(?: race)?)", text)
    if said is None:
        return text.strip().splitlines()[-1]
    what, place = next(filter(None, said.groups())), re.search(r"csrc/[\w.]+:\d+", text)
    what = re.sub(r" 0x[0-9a-f]+", "", what)
    return what if place is None or place[0] in what else f"{what} ({place[0]})"


def by_tests(mutation: Mutation, path: Path) -> str:
    body = "emulated" if mutation.file.startswith("csrc/") else "interpreted"
    files = [f"tests/kernels/test_{op}.py" for op in OPS.get(mutation.op, (mutation.op,))]
    files += ["tests/kernels/test_against_truth.py", "tests/kernels/test_determinism.py"]
    words = [
        "-p",
        "with_mutation",
        "-p",
        "no:cacheprovider",
        "-x",
        "-q",
        "-k",
        f"{body} and not opcheck and not graph",
        *files,
    ]
    environment = {**os.environ, "ORIGINAL_FILE": mutation.file, "MUTATED_FILE": str(path)}
    environment["PYTHONPATH"] = os.pathsep.join(PATHS)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )
    if run.returncode == 0:
        return ""
    failed = re.search(r"^(?:FAILED|ERROR) \S*::(\w+)", run.stdout, re.M)
    return failed[1] if failed else f"pytest ended with {run.returncode}: {(run.stdout + run.stderr)[-300:]}"


def by_programs(mutation: Mutation, path: Path) -> str:
    """In this process, where the mutated module stands beside the true one under another name."""
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is decorated
    import torch
    import triton_launches
    import triton_sanitizer

    torch.manual_seed(0)
    with triton_sanitizer.sanitized() as findings:
        for op in OPS.get(mutation.op, (mutation.op,)):
            try:
                for unwritten in triton_launches.unwritten(op, mutated_module(mutation, path, op)):
                    for (kernel, what), count in findings.found.items():
                        return f"{kernel}: {count} places {what}"
                    if unwritten:
                        return f"{unwritten} numbers that nobody wrote"
            except triton_sanitizer.interpreter.InterpreterError as error:
                return f"the interpreter: {error}"
    return ""


def mutated_module(mutation: Mutation, path: Path, op: str) -> ModuleType:
    """`fused_triton` of the op with the fault, which may lie in what it imports."""
    if mutation.op == op:
        return loaded(f"iidm.kernels.{op}.mutated", path)
    imported = Path(mutation.file).stem
    loaded(f"iidm.kernels.mutated{imported}", path)
    source = (ROOT / "kernels" / op / "fused_triton.py").read_text()
    kernel = path.with_name(f"{op}.py")
    kernel.write_text(source.replace(f"from ..{imported} import", f"from ..mutated{imported} import"))
    return loaded(f"iidm.kernels.{op}.mutated", kernel)


def loaded(name: str, path: Path) -> ModuleType:
    importlib.import_module(name.rpartition(".")[0])
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(part: str = "") -> int:
    """Runs the checks on every mutation whose name has `part`; 1 where one is missed. All of them: writes found.md."""
    rows, missed = [], 0
    for mutation in mutations():
        if part not in mutation.name:
            continue
        cells = []
        for check in checks_of(mutation):
            if (check != "tests" or not cells) and (what := found_by(check, mutation)):
                cells.append(f"`{check}`: {what}")
        if not cells:
            missed += not mutation.unseen
            cells = [f"not seen: {mutation.unseen}" if mutation.unseen else "**nothing**"]
        name = mutation.name.replace("|", r"\|")
        rows.append(f"| {name} | {'<br>'.join(cells)} |")
        print(rows[-1], flush=True)
    if not part:
        head = ["# Planted faults", "", "Written by `python tests/mutations/mutate.py`, which explains the checks.", ""]
        (HERE / "found.md").write_text("\n".join([*head, "| fault | found by |", "| --- | --- |", *rows, ""]))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
