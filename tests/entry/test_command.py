"""The command `iidm` and `python -m iidm.COMMAND`: quick, quiet, and one line for every end that is no success."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from small_runs import Said, one_line

from iidm.cli import PARSERS, parse_config, program, read_config, run_main, write_config
from iidm.cli.short_help import GROUPS
from iidm.command import COMMANDS
from iidm.data import Domains
from iidm.presets import preset_config
from iidm.processes import MAIN
from iidm.runs import prepare_run_dir
from iidm.types import ClassSet, UserError

QUICK = [
    ("train", "--help"),
    ("train", "--preset", "camvid-dusk", "--help-all"),
    ("train", "--list-presets"),
    ("train", "--list-methods"),
    ("train", "--max-stpes", "3"),
    ("train", "--preset", "scense"),
    ("train", "--method", "iidn"),
    ("train", "--max-steps", "0"),
    ("predict", "--help"),
    ("evaluate", "--networks", "teacher"),
    ("report", "--help"),
    ("report", "--pictrues", "3"),
    ("select", "--help"),
    ("export", "--help"),
    ("prepare", "--help-all"),
    ("study", "--jbos", "2"),
]
"""Command lines that are answered before anything that takes seconds is imported."""

ASKED = """
import contextlib, io, json, runpy, sys
for module, words in json.loads(sys.stdin.read()):
    sys.argv = [module, *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            status = None
        except SystemExit as end:
            status = end.code
    heavy = [name for name in ("torch", "nvidia.dali", "matplotlib") if name in sys.modules]
    print(json.dumps([status, out.getvalue(), err.getvalue(), heavy]))
"""


def run(words: Sequence[str], **more: object) -> tuple[int, Said]:
    """`python -m iidm` in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "iidm", *words], capture_output=True, text=True, timeout=600, **more)  # type: ignore[call-overload]
    return done.returncode, Said(done.stdout, done.stderr)


def refused(capsys: pytest.CaptureFixture[str], raised: BaseException, status: int = 2) -> str:
    """The line that ends a command in which `raised` was raised."""

    def main(argv: Sequence[str]) -> None:
        raise raised

    with pytest.raises(SystemExit) as end:
        run_main(main, [])
    assert end.value.code == status
    return one_line(capsys.readouterr().err)


# Help


def test_help_and_mistakes_are_answered_before_anything_heavy_is_imported() -> None:
    asked = [("iidm", words) for words in QUICK] + [(f"iidm.{words[0]}", words[1:]) for words in QUICK]
    done = subprocess.run([sys.executable, "-c", ASKED], input=json.dumps(asked), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(asked)
    for (_, words), (status, out, err, heavy) in zip(asked, answers, strict=True):
        asks = any(word.startswith(("--help", "--list")) for word in words)
        assert (status or 0) == (0 if asks else 2), (words, status, err)
        assert bool(out) == asks and bool(err) != asks, (words, out, err)
        assert heavy == [], words


def test_iidm_alone_tells_every_command_in_a_line() -> None:
    status, said = run([])
    assert status == 0
    for name in COMMANDS:
        (line,) = [line for line in said.out.splitlines() if line.startswith(f"  {name} ")]
        assert len(line.split()) > 3
    assert run(["--help"])[1] == said


def test_a_command_that_does_not_exist_is_answered_with_the_nearest() -> None:
    status, said = run(["trian"])
    assert status == 2
    assert "'trian'" in one_line(said.err) and "'train'" in said.err


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    import iidm

    assert run(["--version"]) == (0, Said(f"iidm {iidm.__version__}\n", ""))


def test_the_short_help_shows_the_options_that_people_need_with_the_presets_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for preset, steps in (("scenes", "[340]"), ("camvid-dusk", "[600]")):
        with pytest.raises(SystemExit):
            parse_config(["--preset", preset, "--help"])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) < 45 and max(map(len, lines)) <= 100
        (line,) = [line for line in lines if line.startswith("  --max-steps ")]
        assert line.endswith(f"Training steps {steps}")
        for name in (name for names in GROUPS.values() for name in names):
            option = "--" + name.replace("_", "-")
            assert sum(line.split()[:1] == [option] for line in lines) == 1, option


def test_all_options_are_in_the_long_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_config(["--help-all"])
    said = capsys.readouterr().out
    assert "--teacher.confidence-threshold" in said and "--mixing.hidden-block-px" in said


@pytest.mark.parametrize(
    ("called", "said"),
    [
        ("python /usr/bin/iidm", "iidm train"),
        ("python /home/me/iidm/iidm/__main__.py", "python -m iidm train"),
        ("python3 /home/me/iidm/iidm/train.py", "python3 -m iidm.train"),
        (".venv/bin/python /home/me/iidm/iidm/train.py", ".venv/bin/python -m iidm.train"),  # as `make train` does
        ("/home/me/.venv/bin/python /home/me/iidm/iidm/study.py", "python -m iidm.train"),
    ],
)
def test_hints_name_the_command_as_it_was_called(
    called: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python, script = called.split()
    monkeypatch.setattr(sys, "orig_argv", [python])
    monkeypatch.setattr(sys, "argv", [script])
    assert program("train") == said
    with pytest.raises(SystemExit):
        parse_config(["--max-stpes", "3"])
    assert f"{said} --help" in " ".join(capsys.readouterr().err.split())


def test_every_command_reads_its_words_early() -> None:
    assert set(PARSERS) <= set(COMMANDS)
    for name in ("train", "predict", "evaluate", "report", "select", "export", "prepare", "study"):
        assert name in PARSERS


def test_the_package_installs_the_command() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '[project.scripts]\niidm = "iidm.command:main"\n' in project


# Ends


@pytest.mark.parametrize("words", [["--list-presets"], ["--help-all"]])
def test_a_reader_that_leaves_ends_it_without_a_word(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-m", "iidm", "train", *words], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_it_imports_is_one_line(number: int, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(60)\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", os.getcwd())])
    code = f"import signal, sys; signal.signal({int(number)}, signal.SIG_DFL)"  # whatever the tests were started with
    code += "; sys.argv = ['iidm', 'train']; from iidm.command import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, b"", b"iidm: stopped.\n")


@pytest.mark.parametrize(
    ("own", "spins"), [({}, 10_000), ({"OMP_WAIT_POLICY": "active"}, None), ({"GOMP_SPINCOUNT": "7"}, 7)]
)
def test_threads_that_wait_for_each_other_sleep_soon_unless_the_environment_says_otherwise(
    own: dict[str, str], spins: int | None
) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    _, said = run(["evaluate", "no-run"], env={**kept, **own, "OMP_DISPLAY_ENV": "verbose"})
    found = re.search(r"GOMP_SPINCOUNT = '(\d+)'", said.err)
    if found is None:
        pytest.skip("torch has another OpenMP than GNU's, which does not tell how long its threads spin")
    assert int(found[1]) == spins if spins is not None else int(found[1]) > 10**6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_termination_outside_the_loop_ends_with_the_status_that_shells_know(number: int) -> None:
    code = f"""
import os, signal
from iidm.cli import run_main
signal.signal({int(number)}, signal.SIG_DFL)
def main(argv):
    try:
        os.kill(os.getpid(), {int(number)})
        signal.pause()
    finally:
        print("cleaned up")
run_main(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "cleaned up\n", "iidm: stopped.\n")


def test_a_worker_whose_main_process_is_gone_ends_at_its_first_look_at_iidm() -> None:
    code = "import iidm; print('alive')"
    for main, alive in ((os.getpid(), b"alive\n"), (os.getppid(), b"")):
        env = {**os.environ, MAIN: str(main)}
        assert subprocess.run([sys.executable, "-c", code], env=env, capture_output=True).stdout == alive


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 432000000 bytes."), "0.4 GB"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has ..."), "2.50 GiB"),
        (MemoryError("Unable to allocate 1.07 GiB for an array with shape (12000, 12000)"), "1.07 GiB"),
        (RuntimeError("std::bad_alloc"), "memory ran out."),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory ran out."),
    ],
)
def test_memory_that_runs_out_is_one_line_with_size_and_remedy(
    error: Exception, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, error)
    assert words in message
    assert "--mode slide" in message and "--data.crop-size" in message


def test_torchs_own_allocator_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert "1152921504.6 GB" in refused(capsys, error.value)


def test_any_other_error_keeps_its_traceback() -> None:
    def main(argv: Sequence[str]) -> None:
        raise RuntimeError("a mistake of ours")

    with pytest.raises(RuntimeError, match="ours"):
        run_main(main, [])


def test_a_run_folder_that_is_a_file_is_not_a_full_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run"
    file.write_text("mine")
    for run_dir in (file, file / "below"):
        config, _ = parse_config(["--run-dir", str(run_dir)])
        with pytest.raises(OSError) as error:
            prepare_run_dir(config, None, None)  # type: ignore[arg-type]
        message = refused(capsys, error.value)
        assert str(run_dir) in message and "folder" in message and "space" not in message
    assert file.read_text() == "mine"


def test_a_full_disk_and_a_folder_that_may_not_be_written_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    for number in (errno.ENOSPC, errno.EFBIG):
        assert "Free some space" in refused(capsys, OSError(number, os.strerror(number)))
    message = refused(capsys, PermissionError(errno.EACCES, "Permission denied", "/data/run"))
    assert "/data/run" in message and "can be read and written" in message


# Files and paths


def test_a_file_name_that_the_output_cannot_hold_is_printed_with_escapes() -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with contextlib.redirect_stdout(output):
        run_main(lambda argv: print("labeled \udcff1.jpg and \u00e9.jpg"), [])
    assert output.buffer.getvalue() == b"labeled \\udcff1.jpg and \\xe9.jpg\n"  # type: ignore[attr-defined]


def test_a_config_file_of_any_editor_is_read_and_one_in_another_encoding_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    write_config(preset_config("scenes"), path)
    text = path.read_text()
    for encoding in ("utf-8-sig", "utf-16"):
        path.write_text(text, encoding=encoding)
        assert read_config(path) == preset_config("scenes")
    for encoding in ("utf-16-be", "latin-1"):
        path.write_text(text.replace("scenes", "scènes"), encoding=encoding)
        with pytest.raises(UserError) as error:
            read_config(path)
        assert f"{path} is no UTF-8 text" in str(error.value)


def test_crops_of_one_cell_are_refused_before_anything_is_made() -> None:
    small = "--data.crop-size 16 16 --model.output-stride 32".split()
    ones = "--data.source-batch 1 --data.target-batch 1 --data.unlabeled-batch 1".split()
    with pytest.raises(UserError) as error:
        parse_config([*small, *ones])
    for word in ("(16, 16)", "--model.output-stride 32", "--data.source-batch is 1", "--data.crop-size"):
        assert word in str(error.value)
    assert parse_config(small)[0].data.source_batch == 4
    assert parse_config([*small, *ones, "--data.crop-size", "16", "48"])[0].data.source_batch == 1
    only = ["--method", "target_only", "--data.source-batch", "1", "--data.unlabeled-batch", "1"]
    assert parse_config([*small, *only])[0].data.source_batch == 1, "what no loss reads does not matter"


def test_runs_without_a_name_that_begin_in_one_second_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("iidm.runs.time.strftime", lambda _: "20261127-040637")
    domains = Domains(ClassSet(("road", "sky"), ((0, 0, 0), (1, 1, 1))), None, None, None, None)
    folders = [prepare_run_dir(preset_config("scenes"), domains, None) for _ in range(3)]
    assert [folder.name for folder in folders] == [f"scenes-iidm-20261127-040637{more}" for more in ("", "-2", "-3")]
    assert all((folder / "config.json").is_file() for folder in folders)
