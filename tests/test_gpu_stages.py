"""The runner of the GPU's stages (benchmarks/gpu): what it says and keeps when they pass, fail, hang or are cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import _look, main
from benchmarks.gpu.records import Records
from benchmarks.gpu.stages import PROCESSES, Stage

ROOT = Path(__file__).parents[1]


def stage(name: str, code: str, seconds: int = 600, least: int = 1, **more: object) -> Stage:
    """A stage that runs this Python."""
    dry = ("-c", f"print('dry'); {code}")
    return Stage(name, "what it shows", seconds, least, ("-c", code), dry, **more)  # type: ignore[arg-type]


def tests_of(name: str, folder: Path, code: str) -> Stage:
    """A stage that runs this test file."""
    (folder / f"test_{name}.py").write_text(code)
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder / f"test_{name}.py"))
    words += ("--junitxml", f"FOLDER/gpu-{name}.xml")
    return Stage(name, "what it shows", 600, 1, words, words)


def kept(folder: Path) -> dict[str, dict[str, object]]:
    loaded: dict[str, dict[str, object]] = json.loads((folder / "gpu-stages.json").read_text())
    return loaded


@pytest.fixture
def limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The limits that stages had. Each is over, whatever its length, when the stage has made the file `over`."""
    seen: list[float] = []

    class Process(subprocess.Popen):  # type: ignore[type-arg]
        def wait(self, timeout: float | None = None) -> int:
            if timeout is None or timeout == 600:
                return super().wait(timeout)
            seen.append(timeout)
            while not (tmp_path / "over").exists():
                time.sleep(0.05)
            raise subprocess.TimeoutExpired(self.args, timeout)

    monkeypatch.setattr("benchmarks.gpu.__main__.subprocess.Popen", Process)
    monkeypatch.setattr("benchmarks.gpu.__main__.GRACE_SECONDS", 600)  # a busy machine is slow
    return seen


def test_a_second_call_goes_on_where_the_first_was_cut_off(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    stages = tuple(stage(name, f"open({str(marks)!r}, 'a').write({name!r})") for name in "abc")
    assert main([str(tmp_path), "a"], stages) == 0
    assert kept(tmp_path).keys() == {"a"}
    assert main([str(tmp_path)], stages) == 0
    assert marks.read_text() == "abc"
    assert main([str(tmp_path), "b"], stages) == 0  # named: again
    assert marks.read_text() == "abcb"


def test_the_exit_status_judges_what_was_asked_for(tmp_path: Path) -> None:
    stages = (stage("good", "print('ran')"), stage("bad", "raise SystemExit(1)"))
    assert main([str(tmp_path), "good"], stages) == 0
    assert main([str(tmp_path)], stages) == 1
    assert main([str(tmp_path), "good"], stages) == 0
    assert main([str(tmp_path), "bad"], stages) == 1


def test_the_build_is_run_again_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = tmp_path / "marks"
    stages = tuple(stage(name, f"open({str(marks)!r}, 'a').write({name[0]!r})") for name in ("build", "tests"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)

    def call(gpu: str, loads: bool, *named: str) -> str:
        monkeypatch.setattr("benchmarks.gpu.__main__._look", lambda dry: (gpu, loads))
        marks.write_text("")
        assert main([str(tmp_path), *named], stages) == 0
        return marks.read_text()

    assert call("NVIDIA H1", False) == "bt"
    assert call("NVIDIA H1", True) == ""
    assert call("NVIDIA H2", True) == "b"  # what the tests showed there stays
    assert call("NVIDIA H2", False) == "b"  # a bare machine of the same kind
    assert call("NVIDIA H1", True, "tests") == "bt"
    assert {name: record["gpu"] for name, record in kept(tmp_path).items()} == dict.fromkeys(
        ("build", "tests"), "NVIDIA H1"
    )
    assert "| NVIDIA H1 | " in (tmp_path / "gpu.md").read_text()


def test_a_build_that_fails_here_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = (stage("build", f"open({str(tmp_path / 'marks')!r}, 'a').write('b'); raise SystemExit(1)"),)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("benchmarks.gpu.__main__._look", lambda dry: ("NVIDIA H1", False))
    assert [main([str(tmp_path)], stages) for _ in range(2)] == [1, 1]
    assert (tmp_path / "marks").read_text() == "b"


def test_whether_the_extension_loads_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _look(dry=True) == ("", True)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for body, loads in (("", True), ("    raise RuntimeError(choice)\n", False)):
        for name in ("torch", "iidm/kernels"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "torch" / "__init__.py").write_text("from . import cuda")
        (tmp_path / "torch" / "cuda.py").write_text("def get_device_name(): return 'NVIDIA H1'\n")
        (tmp_path / "iidm" / "kernels" / "__init__.py").write_text(
            f"def set_implementation(choice):\n    choice\n{body}"
        )
        monkeypatch.setattr("benchmarks.gpu.__main__.ROOT", tmp_path)
        assert _look(dry=False) == ("NVIDIA H1", loads)


def test_what_a_stage_needs_is_looked_for_within_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is imported, which takes seconds."""
    now = [0.0]
    monkeypatch.setattr("benchmarks.gpu.__main__.time.monotonic", lambda: now[0])

    def missing(stage: Stage, dry: bool) -> str:
        now[0] += 900
        return ""

    monkeypatch.setattr("benchmarks.gpu.__main__._missing", missing)
    assert main([str(tmp_path), "--seconds", "1000"], (stage("it", "print('ran')", seconds=300, least=200),)) == 1
    assert kept(tmp_path)["it"]["end"] == "left"


def test_what_failed_is_told_with_its_first_error_and_is_not_run_again(tmp_path: Path) -> None:
    code = "def test_right(): pass\ndef test_wrong(): assert 1 == 2, 'one is | two'\ndef test_later(): assert False"
    stages = (tests_of("faulty", tmp_path, code), stage("after", "print('ran')"))
    assert main([str(tmp_path)], stages) == 1
    page = (tmp_path / "gpu.md").read_text()
    assert "1 passed, 2 failed" in page and "test_wrong: AssertionError: one is / two" in page
    assert "| after | what it shows | passed |" in page
    before = kept(tmp_path)
    assert main([str(tmp_path)], stages) == 1
    assert kept(tmp_path) == before


def test_a_stage_whose_tests_were_all_skipped_has_shown_nothing(tmp_path: Path) -> None:
    code = "import pytest\n@pytest.mark.skip\ndef test_it(): pass"
    stages = (tests_of("skipped", tmp_path, code),)
    assert main([str(tmp_path)], stages) == 1
    assert "not one test ran" in (tmp_path / "gpu.md").read_text()
    assert main([str(tmp_path), "--dry-run"], stages) == 0  # there it is what is expected


def test_a_dry_run_does_not_count_as_a_run(tmp_path: Path) -> None:
    stages = (stage("only", "print('ran')"),)
    assert main([str(tmp_path), "--dry-run"], stages) == 0
    assert "dry" in (tmp_path / "gpu-only.txt").read_text()
    assert "nothing about a GPU" in (tmp_path / "gpu.md").read_text()
    assert Records(tmp_path, dry=False).ended("only") is None


@pytest.mark.usefixtures("limits")
def test_a_hanging_stage_ends_at_its_limit_with_all_that_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time;"
        " child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
        f" open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid));"
        f" open({str(tmp_path / 'over')!r}, 'w'); time.sleep(600)"
    )
    stages = (stage("hangs", code, seconds=3), stage("after", "print('ran')"))
    assert main([str(tmp_path)], stages) == 1
    assert kept(tmp_path)["hangs"]["end"] == "stopped" and kept(tmp_path)["after"]["end"] == "passed"
    pid = int((tmp_path / "child").read_text())
    assert _ends(pid)
    assert main([str(tmp_path)], (stage("hangs", "print('ran')"), stages[1])) == 0  # stopped: run again


def test_what_is_missing_is_named_and_what_does_not_fit_is_left(tmp_path: Path) -> None:
    stages = (
        stage("needs", "print('ran')", needs=("json", "no_such_module")),
        stage("program", "print('ran')", under=("no-such-program",)),
        stage("long", "print('ran')", seconds=500, least=2000),
        stage("short", "print('ran')", seconds=600, least=1),
    )
    assert main([str(tmp_path), "--seconds", "1500"], stages) == 1
    found = {name: (record["end"], record["says"]) for name, record in kept(tmp_path).items()}
    assert found["needs"] == ("missing", "No module named 'no_such_module'")
    assert found["program"] == ("missing", "no program no-such-program")
    assert found["long"][0] == "left" and "needs 2000 s at least, " in str(found["long"][1])
    assert found["short"][0] == "passed"


def test_without_a_gpu_the_first_stage_says_so_and_nothing_else_runs(tmp_path: Path) -> None:
    words = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), str(tmp_path)]
    environment = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    assert "sees no GPU; without one: --dry-run" in run.stdout
    assert set(kept(tmp_path)) == {"build"}


def test_a_program_is_found_where_the_toolkit_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "watcher").write_text('#!/bin/sh\necho watched\nexec "$@"\n')
    (tools / "watcher").chmod(0o755)
    monkeypatch.setattr("benchmarks.gpu.__main__.TOOLS", str(tools))
    assert main([str(tmp_path)], (stage("seen", "print('ran')", under=("watcher",)),)) == 0
    assert (tmp_path / "gpu-seen.txt").read_text() == "watched\nran\n"


@pytest.mark.parametrize("has_gpu", [True, False])
def test_where_the_build_fails_a_gpu_is_still_looked_at(
    has_gpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    stages = (stage("build", "raise SystemExit('no compiler')"), stage("after", "print('ran')"))
    assert main([str(tmp_path)], stages) == 1
    assert [record["end"] for record in kept(tmp_path).values()] == ["failed", *["passed"] * has_gpu]


def test_a_table_that_cannot_be_made_costs_no_stage(tmp_path: Path) -> None:
    row = {"benchmarks": [{"extra_info": {"op": "jitter"}, "stats": {"median": 1.0}}]}
    code = f"import json; json.dump({row!r}, open({str(tmp_path / 'gpu-kernels.json')!r}, 'w'))"
    assert main([str(tmp_path)], (stage("kernels", code), stage("after", "print('ran')"))) == 0
    assert "No table: " in (tmp_path / "gpu.md").read_text()


def test_sigterm_keeps_what_is_known(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from benchmarks.gpu.__main__ import main;"
        " from benchmarks.gpu.stages import Stage;"
        " quick = Stage('quick', 'x', 60, 1, ('-c', 'print(1)'), ());"
        " slow = Stage('slow', 'x', 60, 1, ('-c', 'import time; print(2, flush=True); time.sleep(600)'), ());"
        f" sys.exit(main([{str(tmp_path)!r}], (quick, slow)))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        log = tmp_path / "gpu-slow.txt"
        while not (log.exists() and log.read_text()):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert "the same command goes on" in process.stdout.read()
    assert process.returncode == 1
    assert {name: record["end"] for name, record in kept(tmp_path).items()} == {"quick": "passed", "slow": "stopped"}


def test_a_stage_gets_what_is_left_of_the_time_and_keeps_what_it_has(tmp_path: Path, limits: list[float]) -> None:
    code = f"import time; print('half', flush=True); open({str(tmp_path / 'over')!r}, 'w'); time.sleep(600)"
    assert main([str(tmp_path), "--seconds", "1400"], (stage("endless", code, seconds=2000),)) == 1
    assert len(limits) == 1 and 100 < limits[0] < 1400 - 600
    record = kept(tmp_path)["endless"]
    assert record["end"] == "stopped" and "half" in str((tmp_path / "gpu-endless.txt").read_text())


@pytest.mark.usefixtures("limits")
def test_pytest_keeps_its_figures_and_results_when_a_stage_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pytest-benchmark and JUnit write at the end of a session, and SIGINT is one."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # of the process of these tests: no figures with it
    code = (
        "import time\ndef test_quick(benchmark): benchmark(lambda: 1)\n"
        f"def test_endless(benchmark): open({str(tmp_path / 'over')!r}, 'w'); time.sleep(600)\n"
        "def test_never(benchmark): pass"
    )
    (tmp_path / "test_it.py").write_text(code)
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path / "test_it.py"))
    words += ("--junitxml", "FOLDER/gpu-it.xml", "--benchmark-json", "FOLDER/gpu-it.json")
    assert main([str(tmp_path)], (Stage("it", "x", 10, 1, words, words, ("pytest_benchmark",)),)) == 1
    record = kept(tmp_path)["it"]
    assert record["end"] == "stopped" and "1 passed" in str(record["says"])
    assert [row["name"] for row in json.loads((tmp_path / "gpu-it.json").read_text())["benchmarks"]] == ["test_quick"]


def test_a_process_that_has_lost_its_gpu_costs_no_other_test(tmp_path: Path) -> None:
    code = (
        "import os\nfrom benchmarks.gpu import lost_device\nlost_device.is_lost = lambda: 'LOST' in os.environ\n"
        "def test_before(): pass\n"
        "def test_faulty():\n    os.environ['LOST'] = '1'\n    assert False, 'illegal address'\n"
        "def test_later(): assert 'LOST' not in os.environ\ndef test_last(): assert 'LOST' not in os.environ"
    )
    (tmp_path / "test_it.py").write_text(code)
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path / "test_it.py"))
    words += ("--junitxml", "FOLDER/gpu-it.xml", "-n", "1", *PROCESSES[2:])
    assert main([str(tmp_path)], (Stage("it", "x", 600, 1, words, words, ("xdist",)),)) == 1
    says = str(kept(tmp_path)["it"]["says"])
    assert says.startswith("3 passed") and "illegal address" in says
    assert "crashed while running" in (tmp_path / "gpu-it.txt").read_text()


def test_after_each_stage_the_results_are_copied_as_two_files(tmp_path: Path) -> None:
    place = tmp_path / "out"
    look = f"import os; print(sorted(os.listdir({str(place)!r})), flush=True)"
    write = f"open({str(tmp_path / 'work' / 'weights')!r}, 'wb').write(bytes(5 << 20))"
    stages = (stage("writes", write), stage("looks", look))
    assert main([str(tmp_path / "work"), "--copy", str(place)], stages) == 0
    assert (tmp_path / "work" / "gpu-looks.txt").read_text() == "['gpu.md', 'gpu.tar.gz']\n"
    with tarfile.open(place / "gpu.tar.gz") as archive:
        names = archive.getnames()
    assert names == [f"gpu/{n}" for n in ("gpu-looks.txt", "gpu-stages.json", "gpu-writes.txt", "gpu.md")]
    assert "| looks | what it shows | passed |" in (place / "gpu.md").read_text()


def _ends(pid: int) -> bool:
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True  # its parent is dead too; whoever inherits it has not asked yet
        time.sleep(0.05)
    return False
