"""Compiles csrc/*_cuda.cu for the CPU, as they are: `extension` for Python, `program` under a sanitizer.

Only what g++ cannot read is rewritten: launches and the declarations of shared memory. Objects are kept in
build/cuda_on_cpu by the hash of all that goes into them.

    python tests/cuda_on_cpu/on_cpu.py [address|thread] [ARGUMENT...]      builds a program and runs it
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"
CACHE = ROOT / "build" / "cuda_on_cpu"
KEPT_S = 14 * 24 * 3600
"""Objects that were not used for so long are removed."""

COMMON = ["-std=c++17", "-g1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-strict-aliasing", "-w"]
KERNELS = ["-O1", "-D__CUDACC__", "-D__CUDA_ARCH__=800", "-include", "cuda_runtime.h"]
CHECKED = ["-fsanitize=alignment,bounds"]
# Flags of the kernels and of the link; macros of what runs them, which is compiled without sanitizers.
SANITIZERS: dict[str, tuple[list[str], list[str]]] = {
    "plain": ([], []),
    "address": (
        ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
        ["-DCUDA_ON_CPU_ADDRESS", "-DCUDA_ON_CPU_UNDEFINED"],
    ),
    "thread": (
        ["-fsanitize=thread", "--param", "tsan-distinguish-volatile=1"],
        ["-DCUDA_ON_CPU_THREAD", "-DCUDA_ON_CPU_UNDEFINED"],
    ),
}
Edit = tuple[int, int, str]


@cache
def why_not() -> str:
    """Why this machine cannot build them; empty where it can."""
    compiler = os.environ.get("CXX", "g++").split()
    if shutil.which(compiler[0]) is None:
        return f"needs g++ (looked for {compiler[0]})"
    told = subprocess.run([*compiler, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True).stdout
    if "__clang__" in told or "__GNUC__" not in told:
        return f"needs g++, {compiler[0]} is another compiler"
    return "" if sys.platform == "linux" else "needs Linux"


def without_comments(source: str) -> str:
    """The source with blanks for comments and for what stands in quotes: the same length and lines."""
    pattern = r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|(?<![\w])\'(?:\\.|[^\'\\\n])+\''
    return re.sub(pattern, lambda m: re.sub(r"[^\n]", " ", m[0]), source, flags=re.S)


def closing(text: str, start: int, pair: str) -> int:
    """Where the bracket that is open at `start` (which is behind it) closes."""
    depth, at = 1, start
    while depth:
        depth += {pair[0]: 1, pair[1]: -1}.get(text[at], 0)
        at += 1
    return at - 1


def launches(code: str, source: str) -> Iterator[Edit]:
    """kernel<<<configuration>>>(arguments) -> cuda_on_cpu::launch(configuration, kernel, arguments)."""
    word, template = r"[A-Za-z_]\w*", r"<[^<>;{}()]*(?:<[^<>;{}()]*>)?[^<>;{}()]*>"
    for found in re.finditer(rf"((?:{word}(?:::|\.|->))*{word}(?:{template})?)\s*<<<", code):
        end = code.index(">>>", found.end())
        opened = code.index("(", end) + 1
        closed = closing(code, opened, "()")
        arguments = source[opened:closed]
        yield (
            found.start(),
            closed + 1,
            f"cuda_on_cpu::launch(cuda_on_cpu::config({source[found.end() : end]}), {found[1]}"
            f"{', ' if arguments.strip() else ''}{arguments})",
        )


def shared_arrays(code: str, source: str) -> Iterator[Edit]:
    """__shared__ T name[N]; -> auto& name = cuda_on_cpu::shared<T[N]>(...); `extern`: the launch's dynamic array."""
    align = r"(?:(?:alignas|__align__)\s*\(([^()]*)\)\s*)?"
    for found in re.finditer(rf"{align}(\bextern\s+)?{align}__shared__\s+{align}([^;={{}}]*?);", code):
        declared = re.fullmatch(r"(.*?[\s>])(\w+)\s*((?:\[[^\]]*\]\s*)*)", found[5].strip(), re.S)
        if declared is None or "," in re.sub(r"<.*>|\[.*?\]", "", found[5], flags=re.S):
            line = code.count("\n", 0, found.start()) + 1
            raise ValueError(f"line {line}: one shared variable a declaration, please: {found[0]}")
        kind, name, size = declared[1].strip(), declared[2], declared[3].strip()
        aligned = found[1] or found[3] or found[4] or ""
        if found[2]:
            new = f"auto* {name} = cuda_on_cpu::dynamic_shared<{kind}>({aligned});"
        else:
            new = f"auto& {name} = cuda_on_cpu::shared<{kind}{size}>([] {{}}{', ' if aligned else ''}{aligned});"
        yield found.start(), found.end(), new + "\n" * source.count("\n", found.start(), found.end())


def converted(source: str, name: str) -> str:
    """A .cu or .cuh file as C++; compilers and sanitizers name its own lines."""
    code = without_comments(source)
    for edits in (shared_arrays, launches):
        for start, end, new in sorted(edits(code, source), reverse=True):
            source = source[:start] + new + source[end:]
        code = without_comments(source)
    if "<<<" in code or "__shared__" in code:
        raise ValueError(f"{name}: a launch or a shared variable that the conversion does not know.")
    return f'#line 1 "{name}"\n{source}'


class Build:
    """The objects of one csrc folder, compiled where they are not at hand."""

    def __init__(self, csrc: Path | None = None) -> None:
        self.csrc = csrc or CSRC
        CACHE.mkdir(parents=True, exist_ok=True)
        for file in CACHE.iterdir():
            if time.time() - file.stat().st_mtime > KEPT_S and file.is_file():
                file.unlink(missing_ok=True)
        headers = sorted([*self.csrc.glob("*.h"), *self.csrc.glob("*.cuh"), *HERE.rglob("*.h")])
        self.headers = b"".join(p.name.encode() + p.read_bytes() for p in headers)
        self.compiler = os.environ.get("CXX", "g++").split()
        version = subprocess.run([*self.compiler, "--version"], capture_output=True, check=True).stdout
        self.headers += version

    def made(self, suffix: str, content: Sequence[bytes | str], make: Callable[[Path], None]) -> Path:
        """The file of this content: made unless it is at hand."""
        digest = hashlib.sha256()
        for part in content:
            digest.update(part.encode() if isinstance(part, str) else part)
            digest.update(b"\0")
        path = CACHE / (digest.hexdigest()[:24] + suffix)
        if path.exists():
            path.touch()
        else:
            temporary = path.with_name(f"{path.stem}-{os.getpid()}{suffix}")
            make(temporary)
            os.replace(temporary, path)
        return path

    def call(self, *words: str | Path) -> None:
        command = [*self.compiler, *map(str, words)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{run.stderr}")

    def object(self, source: Path, flags: Sequence[str]) -> Path:
        """`source` compiled; a .cu is converted, and the .cuh files that it includes."""
        includes = [f"-I{HERE / 'include'}", f"-I{HERE}", f"-I{self.csrc}"]
        content = [self.headers, source.name, source.read_bytes(), *COMMON, *flags]
        if source.suffix != ".cu":
            return self.made(".o", content, lambda to: self.call(*COMMON, *flags, *includes, "-c", source, "-o", to))

        def make(to: Path) -> None:
            folder = to.with_suffix(".d")
            folder.mkdir(exist_ok=True)
            for file in (source, *self.csrc.glob("*.cuh")):
                name = file.name if file != source else f"{file.stem}.cpp"
                (folder / name).write_text(converted(file.read_text(), f"csrc/{file.name}"))
            flags_here = [*COMMON, *flags, f"-I{folder}", *includes]
            self.call(*flags_here, "-c", folder / f"{source.stem}.cpp", "-o", to)
            shutil.rmtree(folder)

        return self.made(".o", content, make)

    def kernels(self, flags: Sequence[str]) -> list[Path]:
        return [self.object(source, [*KERNELS, *flags]) for source in sorted(self.csrc.glob("*_cuda.cu"))]

    def shim(self, macros: Sequence[str]) -> list[Path]:
        return [self.object(HERE / name, ["-O2", *macros]) for name in ("blocks.cpp", "runtime.cpp")]

    def linked(self, suffix: str, objects: Sequence[Path], flags: Sequence[str]) -> Path:
        content = [*(o.name for o in objects), *flags]
        return self.made(suffix, content, lambda to: self.call("-o", to, *objects, *flags))

    def extension(self) -> Path:
        """The module `_C` with its CUDA kernels on the CPU. To call one of its C++ kernels ends the process."""
        import pybind11

        python = [f"-I{sysconfig.get_path('include')}", f"-I{pybind11.get_include()}"]
        macros = ["-DIIDM_WITH_CUDA", '-DIIDM_CUDA_ARCHS="cpu"']
        bindings = self.object(self.csrc / "bindings.cpp", ["-O1", *macros, *python])
        objects = [bindings, *self.kernels(CHECKED), *self.shim([])]
        return self.linked(str(sysconfig.get_config_var("EXT_SUFFIX")), objects, ["-shared", "-Wl,-z,lazy"])

    def program(self, sanitizer: str, main: Path = HERE / "run_kernels.cpp") -> Path:
        """`main` under `address` (and undefined behaviour), `thread` or none (`plain`); a .cpp runs the kernels."""
        flags, macros = SANITIZERS[sanitizer]
        if main.suffix == ".cu":
            objects = [self.object(main, [*KERNELS, *(flags or CHECKED)])]
        else:
            objects = [self.object(main, ["-O1", *flags]), *self.kernels(flags)]
        return self.linked("", [*objects, *self.shim(macros)], flags)


def run_program(program: Path, *arguments: str, order: int = 0) -> subprocess.CompletedProcess[str]:
    """The program's run; a return code other than 0 is a finding."""
    options = {"ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=0", "UBSAN_OPTIONS": "print_stacktrace=0"}
    options |= {"TSAN_OPTIONS": "report_thread_leaks=0:halt_on_error=1", "CUDA_ON_CPU_ORDER": str(order)}
    return subprocess.run([program, *arguments], capture_output=True, text=True, env={**os.environ, **options})


if __name__ == "__main__":
    result = run_program(Build().program(sys.argv[1]), *sys.argv[2:])
    print(result.stdout + result.stderr)
    sys.exit(result.returncode)
