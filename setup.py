"""Builds the extension iidm.kernels._C: the C++ part always, the CUDA part where nvcc is found. torch is not
needed.

Environment:
    IIDM_CUDA         auto (default: CUDA if nvcc is found), 1 (fail without nvcc), 0 (C++ alone)
    IIDM_CUDA_ARCHS   compute capabilities, default "80;90"; PTX of the highest goes in as well
    CUDA_HOME         where the CUDA toolkit lies, else nvcc from PATH; CXX the C++ compiler
    CFLAGS            flags of the C++ compiler, after setup.py's own
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from pybind11 import get_include
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

CPP_SOURCES = ["csrc/bindings.cpp", *sorted(map(str, Path("csrc").glob("*_cpu.cpp")))]
CUDA_SOURCES = sorted(map(str, Path("csrc").glob("*_cuda.cu")))
HEADERS = sorted(str(p) for suffix in ("*.h", "*.cuh") for p in Path("csrc").glob(suffix))


def find_nvcc() -> Path | None:
    """nvcc of CUDA_HOME, or the one on PATH."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        home = os.environ.get(variable)
        if home and (found := shutil.which(str(Path(home, "bin", "nvcc")))):
            return Path(found)
    on_path = shutil.which("nvcc")
    return Path(on_path).resolve() if on_path else None


def wanted_nvcc() -> Path | None:
    """The nvcc to build with, None for a build without CUDA, as IIDM_CUDA says."""
    wish = os.environ.get("IIDM_CUDA", "auto")
    if wish not in ("auto", "0", "1"):
        raise SystemExit(f"IIDM_CUDA must be auto, 0 or 1, not {wish!r}.")
    nvcc = None if wish == "0" else find_nvcc()
    if wish == "1" and nvcc is None:
        raise SystemExit(
            "IIDM_CUDA=1 asks for the CUDA kernels, but nvcc was found neither in CUDA_HOME nor on PATH."
            " Install the CUDA toolkit or set CUDA_HOME; IIDM_CUDA=0 builds the C++ part alone."
        )
    return nvcc


def cuda_archs() -> list[str]:
    """Compute capabilities to compile for, lowest first."""
    text = os.environ.get("IIDM_CUDA_ARCHS") or "80;90"
    archs = [a for a in re.split(r"[;, ]+", text) if a]
    if not archs or not all(re.fullmatch(r"\d{2,3}[af]?", a) for a in archs):
        raise SystemExit(f'IIDM_CUDA_ARCHS must be numbers like "80;90" (compute capability times ten), not {text!r}.')
    return sorted(set(archs), key=lambda a: (int(a.rstrip("af")), a))


def cudart_folder(nvcc: Path) -> Path:
    """The folder of libcudart_static.a. nvcc itself is asked: on PATH it may be a script or a link."""
    dry_run = subprocess.run([str(nvcc), "--dryrun", "-c", CUDA_SOURCES[0]], capture_output=True, text=True)
    named = re.search(r"LIBRARIES=(.*)", dry_run.stderr + dry_run.stdout)
    candidates = [Path(p) for p in re.findall(r'-L([^"\s]+)', named.group(1))] if named else []
    candidates += [nvcc.parent.parent / "lib64", nvcc.parent.parent / "lib"]
    for folder in candidates:
        if (folder / "libcudart_static.a").exists():
            return folder.resolve()
    raise SystemExit(
        f"{nvcc} was found, but no libcudart_static.a (looked in {', '.join(map(str, candidates))})."
        " Set CUDA_HOME to a full CUDA toolkit; IIDM_CUDA=0 builds the C++ part alone."
    )


class BuildExtension(build_ext):
    """setuptools' own build, with OpenMP where the compiler has it and the CUDA objects linked in."""

    def build_extension(self, ext: Extension) -> None:
        nvcc = wanted_nvcc()
        self.force = True  # setuptools would keep an extension that was built with another IIDM_CUDA
        command = self.cxx()
        compiler = command[0]
        if shutil.which(compiler) is None:
            raise SystemExit(
                f"A C++17 compiler is needed to build iidm, but {compiler!r} was not found."
                " Install one (on Debian and Ubuntu: apt install g++) or set CXX."
            )
        ext.extra_compile_args = ["-std=c++17", "-O3", "-g0", "-ffp-contract=off", "-fno-trapping-math"]
        ext.extra_compile_args += ["-fno-math-errno", "-fvisibility=hidden"]
        ext.extra_compile_args += shlex.split(os.environ.get("CFLAGS", ""))  # who builds has the last word
        if self.has_openmp(command):
            ext.extra_compile_args.append("-fopenmp")
            ext.extra_link_args.append("-fopenmp")
        else:
            self.warn(f"{compiler} has no OpenMP: the C++ kernels will run on one core")
        if nvcc is not None:
            self.add_cuda(ext, nvcc)
        super().build_extension(ext)

    def cxx(self) -> list[str]:
        """The command that compiles C++; setuptools has put CXX and its flags into it."""
        return list(getattr(self.compiler, "compiler_so_cxx", None) or self.compiler.compiler_so)

    def has_openmp(self, compiler: list[str]) -> bool:
        """Whether a program with OpenMP compiles and links."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "openmp.cpp")
            source.write_text("#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n")
            command = [*compiler, "-fopenmp", str(source), "-o", str(source.with_suffix(""))]
            return subprocess.run(command, capture_output=True).returncode == 0

    def add_cuda(self, ext: Extension, nvcc: Path) -> None:
        """Compile the .cu files and hand their objects to the link of `ext`."""
        archs = cuda_archs()
        folder = Path(self.build_temp, "cuda")
        folder.mkdir(parents=True, exist_ok=True)
        flags = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in archs]
        newest = archs[-1].rstrip("af")  # PTX of an architecture with a letter is for that one alone
        flags.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
        for source in CUDA_SOURCES:
            target = folder / (Path(source).stem + ".o")
            command = [str(nvcc), "-c", source, "-o", str(target), "-std=c++17", "-O3", "--threads=0", *flags]
            command += ["-Xcompiler=-fPIC,-fvisibility=hidden"]
            print(" ".join(command), flush=True)
            if subprocess.run(command).returncode != 0:
                raise SystemExit(
                    f"{nvcc} could not compile {source} for {';'.join(archs)} (see above)."
                    " IIDM_CUDA_ARCHS sets the architectures; IIDM_CUDA=0 builds the C++ part alone."
                )
            ext.extra_objects.append(str(target))
        ext.define_macros += [("IIDM_WITH_CUDA", None), ("IIDM_CUDA_ARCHS", f'"{";".join(archs)}"')]
        ext.library_dirs.append(str(cudart_folder(nvcc)))
        # The static runtime: the extension then loads on a machine without a GPU or driver.
        ext.libraries += ["cudart_static", "rt", "dl", "pthread"]


setup(
    packages=[
        "iidm",
        *(f"iidm.{p}" for p in find_packages("iidm")),
        "iidm.kernels",
        *(f"iidm.kernels.{p}" for p in find_packages("kernels")),
    ],
    # A top-level package `kernels` would collide with another project's of that name.
    package_dir={"iidm": "iidm", "iidm.kernels": "kernels"},
    package_data={"iidm": ["**/*.txt", "**/*.toml", "**/*.json", "py.typed", "reports/report.*", "reports/*.jinja"]},
    ext_modules=[
        Extension(
            "iidm.kernels._C",
            CPP_SOURCES,
            include_dirs=["csrc", get_include()],
            depends=HEADERS,
            language="c++",
        )
    ],
    cmdclass={"build_ext": BuildExtension},
)
