"""The package as others get it: a source archive, the wheel that is built from it, and that wheel in an environment
that does not see the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import iidm

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "entry"))

import small_runs  # noqa: E402

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="git tells which files are the project's"
)


def tracked(*folders: str) -> set[str]:
    """The files in `folders` that git tracks, below the checkout."""
    words = ["git", "ls-files", "-z", *folders]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split("\0") if name and (ROOT / name).is_file()}


def clean_environment() -> dict[str, str]:
    """No checkout on the path, and a build without CUDA, which would take minutes, and without optimisation."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "CUDA", "IIDM_", "CXX"))}
    return {**kept, "IIDM_CUDA": "0", "CFLAGS": "-O0", "OMP_NUM_THREADS": "1", "IIDM_CACHE": os.environ["IIDM_CACHE"]}


def told(words: list[str | Path], folder: Path) -> str:
    """What a command prints, run in `folder`; it must end well."""
    done = subprocess.run(list(map(str, words)), cwd=folder, capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-4000:])
    return done.stdout


def build(folder: Path, *kinds: str) -> Path:
    """`python -m build` on a copy of the checkout as git knows it, with the build tools that are installed."""
    for name in tracked():
        (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / "copy" / name)
    told([sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", folder / "dist"], folder / "copy")
    return folder / "dist"


def shown_by_the_readme() -> set[str]:
    """Pages and pictures of docs/ and beside the README to which it links, as paths below the checkout."""
    links = set(re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    return {link for link in links if not link.startswith(("https:", "docs/results/", "benchmarks/"))}


def test_the_source_archive_has_all_that_a_build_needs(tmp_path: Path) -> None:
    (archive,) = build(tmp_path, "--sdist").iterdir()
    assert archive.name == f"iidm-{iidm.__version__}.tar.gz"
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    needed = tracked("iidm", "kernels", "csrc", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE*")
    assert needed - names == set()
    assert {Path(name).suffix for name in needed} >= {".cpp", ".cu", ".h", ".cuh", ".toml", ".jinja", ".css", ".js"}
    shown = shown_by_the_readme()
    assert {"docs/validation.png", "docs/own-data.md"} <= shown and shown - names == set()
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/")) or name.endswith((".so", ".pyc"))]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_a_wheel_from_the_source_archive_works_without_the_checkout(tmp_path: Path) -> None:
    built = build(tmp_path)  # the wheel is built from the archive
    assert len(list(built.glob("*.tar.gz"))) == 1
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        facts = f"iidm-{iidm.__version__}.dist-info/"
        metadata = Parser().parsestr(opened.read(facts + "METADATA").decode())
        commands = opened.read(facts + "entry_points.txt").decode()
    files = tracked("iidm") | {f"iidm/{name}" for name in tracked("kernels")}
    (extension,) = names - files - {name for name in names if name.startswith(facts)}
    assert files - names == set() and re.fullmatch(r"iidm/kernels/_C\..*so", extension)
    licenses = {name.rpartition("/")[2] for name in names if name.startswith(facts + "licenses/")}
    assert licenses == tracked("LICENSE*", "NOTICE*")
    assert commands.split() == ["[console_scripts]", "iidm", "=", "iidm.command:main"]
    check_metadata(metadata)
    shutil.rmtree(tmp_path / "copy")
    programs = environment(tmp_path / "venv", wheel)
    check_installed(programs, tmp_path)


def check_metadata(metadata: Message) -> None:
    """The wheel says what pyproject.toml says, and tells the README."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (metadata["Name"], metadata["Version"]) == ("iidm", iidm.__version__)
    assert SpecifierSet(metadata["Requires-Python"]) == SpecifierSet(project["requires-python"])
    assert metadata["Summary"] == project["description"]
    extras = project["optional-dependencies"]
    assert set(metadata.get_all("Provides-Extra", [])) == set(extras)
    required = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    always = {r.name for r in required if "extra ==" not in str(r.marker)}
    assert always == {Requirement(line).name for line in project["dependencies"]}
    for extra, lines in extras.items():
        named = {r.name for r in required if re.search(rf"extra == .{extra}.$", str(r.marker))}
        assert named == {Requirement(line).name for line in lines}, extra
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()


def environment(folder: Path, wheel: Path) -> Path:
    """An environment with the wheel and what is installed here, without the checkout; returns its folder of programs.

    The lines of a .pth file become part of the path, but .pth files in the folders that they name are not read; and
    such a one is all that leads from there to the checkout.
    """
    venv.create(folder, symlinks=True)
    programs = folder / "bin"
    pip = [sys.executable, "-m", "pip", "--python", programs / "python", "--disable-pip-version-check", "--quiet"]
    told([*pip, "install", "--no-deps", "--no-index", wheel], folder)
    (own,) = folder.glob("lib/python*/site-packages")
    others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (own / "others.pth").write_text("\n".join(others) + "\n")
    return programs


def check_installed(programs: Path, folder: Path) -> None:
    """What is installed beside `programs` is this wheel, and it trains, reports and finds its files."""
    code = "import iidm; from iidm.kernels import _C, build_info; print(iidm.__file__); print(build_info(), dir(_C))"
    where, info = told([programs / "python", "-c", code], folder).splitlines()
    assert Path(where).is_relative_to(programs.parent)
    assert "'extension': True" in info and "'cuda': False" in info
    assert "cross_entropy_cpu" in info and "_cuda" not in info
    assert told([programs / "iidm", "--version"], folder) == f"iidm {iidm.__version__}\n"
    assert "usage: iidm COMMAND" in told([programs / "iidm", "--help"], folder)
    assert "table4" in told([programs / "iidm", "study", "--list"], folder)
    words = small_runs.options(small_runs.write_data(folder / "data"), folder / "run", "--max-steps", "2")
    assert "mIoU" in told([programs / "iidm", "train", *words, "--kernels", "fused"], folder)
    told([programs / "iidm", "report", folder / "run", "--no-evaluate"], folder)
    assert "mIoU" in (folder / "run" / "report.html").read_text(encoding="utf-8")
