"""Every command that the pages show is one that its program understands, and every option that they name exists.

What is more than understood is run: test_docs.py, test_predict_docs.py, test_export.py and others read their commands
from the page.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from page_commands import PAGES, ROOT, Command, blocks, commands, inline_code, shows_commands

from iidm.cli import PARSERS, write_config
from iidm.cli.train_words import parse_config
from iidm.command import COMMANDS
from iidm.data.specs.known import SPECS
from iidm.studies.grid import BUDGET, known_studies
from iidm.types import UserError

NO_COMMANDS = {
    "README.md": ["class            student   teacher"],
    "CONTRIBUTING.md": ["CUTMIX = Entry(", "class MinimaxEntropy(Method):"],
    "export.md": ['"""python label.py teacher.onnx photo.jpg label.png"""'],
    "label-next.md": ["With 80 labels the student's mIoU is 56.5 (± 1.2 over 3 draws)."],
    "own-data.md": ['images = "images/{split}"'],
    "studies.md": ['title = "Is the class balance worth it on my camera?"'],
}
"""Blocks that show something else, by the beginning of their first line."""

NOT_CHECKED = {
    "git clone": "the address of the repository is the reader's",
    "cd iidm": "goes with git clone",
    "python3 -m venv .venv": ".ci/run does it, through make",
    "ray start --head": "starts services on a machine; test_study_on_ray.py has a cluster of its own",
    "ray start --address": "needs a second machine",
    "ray stop": "goes with ray start",
}
"""Commands of other programs that no test runs, by their beginning, and why."""

PLACEHOLDERS = {"M": "iidm", "NAME": "iidm", "N": "2", "H": "128", "W": "128"}
"""Words of the pages for which the reader gives a value of a certain form, and such a value."""

OF_OTHERS = {
    "labelme": ("--output",),
    "ray": ("--generate",),
    "docker": ("--shm-size",),
    "pip": ("--upgrade",),
    "torchrun": ("--nproc-per-node", "--max-restarts", "--nnodes", "--rdzv-backend", "--rdzv-endpoint"),
}
"""Options of other programs that the pages name in a sentence."""

SHOWN = [command for page in PAGES for block in blocks(page) if shows_commands(block) for command in commands(block)]


def test_every_block_of_the_pages_shows_commands_or_is_known_to_show_none() -> None:
    found = {page.name: [b.lines[0].strip() for b in blocks(page) if not shows_commands(b)] for page in PAGES}
    found = {name: lines for name, lines in found.items() if lines}
    assert found.keys() == NO_COMMANDS.keys()
    for name, lines in found.items():
        assert len(lines) == len(NO_COMMANDS[name]), (name, lines)
        assert all(line.startswith(start) for line, start in zip(lines, NO_COMMANDS[name], strict=True)), (name, lines)


@pytest.fixture
def in_a_folder_with_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder has runs/first/config.json, as the page of own data leaves it."""
    monkeypatch.chdir(tmp_path)
    config, _ = parse_config(shlex.split("--data.target.spec camera.toml --method target_intra --data.val-count 5"))
    Path("runs/first").mkdir(parents=True)
    write_config(config, Path("runs/first/config.json"))


@pytest.mark.usefixtures("in_a_folder_with_a_run")
def test_every_command_is_understood(pytestconfig: pytest.Config) -> None:
    left_out: set[str] = set()
    for command in SHOWN:
        reasons = [start for start in NOT_CHECKED if command.text.startswith(start)]
        left_out.update(reasons)
        if reasons:
            continue
        wrong = misunderstood(command, pytestconfig)
        assert wrong == "", f"{command.place}: {command.text}\n{wrong}"
    assert left_out == set(NOT_CHECKED), "what no page shows any more"
    assert len(SHOWN) > 80


WRONG = (
    "iidm train --data.val-cuont 5",
    "iidm train --preset scense",
    "python -m iidm.trian --amp",
    "torchrun --nproc-per-node 2 -m iidm.train --apm",
    "iidm predict runs/first photos",
    "iidm study table9 --out DIR",
    "iidm study table4 --out DIR -- --apm",
    "iidm prepare gta6 --root DIR --out DIR",
    "python -m benchmarks.nothing",
    "python -m benchmarks.bench_predict --picture 3",
    "pytest tests/nothing",
    "pytest --longer",
    "make trian",
    "pip install 'iidm[nothing]'",
    "--step.graph auto|perhaps",
    "curl x",
)


@pytest.mark.usefixtures("in_a_folder_with_a_run")
@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_command_is_found(text: str, pytestconfig: pytest.Config) -> None:
    assert misunderstood(Command("page", text, tuple(shlex.split(text))), pytestconfig)


def misunderstood(command: Command, pytestconfig: pytest.Config) -> str:
    """What is wrong with a command; empty if its program understands it."""
    words = [PLACEHOLDERS.get(word, word) for word in command.words if word != "..."]
    if words[0].startswith("--"):
        return "".join(refusal("train", choice) for choice in choices(words))
    program, rest = Path(words[0]).name, words[1:]
    if "-m" in rest and program in ("python", "torchrun"):
        module, rest = rest[rest.index("-m") + 1], rest[rest.index("-m") + 2 :]
        room, _, name = module.partition(".")
        if room == "iidm":
            return refusal(name, rest)
        if room == "benchmarks":
            is_package = (ROOT / "benchmarks" / name).is_dir()
            return missing([f"benchmarks/{name}/__main__.py" if is_package else f"benchmarks/{name}.py", *rest])
        program = module
    if program == "iidm":
        return refusal(rest[0], rest[1:])
    if program == "pytest":
        return unknown_to_pytest(rest, pytestconfig)
    if program in ("bash", "python"):
        return missing(rest)
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
        return "" if rest[0] in targets else f"the Makefile has no target {rest[0]}"
    if program == "pip" and rest[0] == "install":
        named = re.findall(r"\[(.*?)\]", rest[-1])
        return "" if named and f"\n{named[0]} = [" in (ROOT / "pyproject.toml").read_text() else "no such extra"
    return "nothing tells how to check it: add that here, or a line to NOT_CHECKED"


def choices(words: list[str]) -> Iterator[list[str]]:
    """A line of options as command lines of one option each, with each of the alternatives `x|y` of its value."""
    starts = [place for place, word in enumerate(words) if word.startswith("--")]
    for start, end in zip(starts, [*starts[1:], len(words)], strict=True):
        option, *values = words[start:end]
        for alternative in values[0].split("|") if values else [""]:
            if alternative != "...":
                yield [option, *filter(None, [alternative]), *values[1:]]


def refusal(name: str, words: list[str]) -> str:
    """What `iidm NAME` answers to words that it does not take; empty where it takes them."""
    if name not in COMMANDS:
        return f"iidm has no command {name}"
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            read = PARSERS[name](words)
            if name == "study":
                arguments, options = read
                PARSERS["train"]([*(["--preset", arguments.preset] if arguments.preset else []), *options])
    except UserError as error:
        return str(error)
    except SystemExit as end:
        return said.getvalue() if end.code else ""
    known = {"study": [*known_studies(), BUDGET], "prepare": [*SPECS]}.get(name)
    if known and words and not words[0].startswith("-") and not words[0].endswith(".toml") and words[0] not in known:
        return f"{words[0]} is none of {', '.join(known)}"
    return ""


def missing(words: list[str]) -> str:
    """What a script of this repository lacks: itself, or an option that its text does not hold."""
    path = ROOT / words[0]
    if not path.is_file():
        return f"there is no {words[0]}"
    text = path.read_text(encoding="utf-8")
    return "".join(f"{words[0]} has no {word}\n" for word in words[1:] if word.startswith("--") and word not in text)


def unknown_to_pytest(words: list[str], pytestconfig: pytest.Config) -> str:
    """Options that pytest does not have with this project's plugins, and folders that are not there."""
    with_value = [words[i + 1] for i, word in enumerate(words[:-1]) if word in ("-k", "--benchmark-json")]
    paths = [word for word in words if not word.startswith("-") and word not in with_value]
    wrong = [f"there is no {path}" for path in paths if not (ROOT / path).exists()]
    for option in (word for word in words if word.startswith("-")):
        with contextlib.suppress(ValueError):
            pytestconfig.getoption(option)
            continue
        wrong.append(f"pytest has no {option}")
    return "\n".join(wrong)


def options_of(command: str) -> set[str]:
    """The options in the help of a command, with those that switch one off."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        PARSERS[command](["--help-all"])
    return set(re.findall(r"--[a-z][\w.-]*", said.getvalue()))


def test_every_option_that_a_sentence_names_exists() -> None:
    known = set(itertools.chain.from_iterable(map(options_of, PARSERS)))
    known |= {"--help", "--help-all", "--preset", "--config", "--resume", "--recipe", "--method"}
    known |= {"--list-presets", "--list-methods"}.union(*OF_OTHERS.values())
    scripts = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "benchmarks").rglob("*.py")))
    known |= set(re.findall(r'"(--[a-z][\w-]*)"', scripts + (ROOT / "conftest.py").read_text()))
    for page in PAGES:
        for code in inline_code(page):
            named = re.findall(r"(?<![\w-])--[a-z][\w.-]*", code)
            assert set(named) <= known, (page.name, code, set(named) - known)


def test_every_command_that_a_sentence_names_exists() -> None:
    for page in PAGES:
        for code in inline_code(page):
            for name in re.findall(r"^(?:iidm |python -m iidm[ .])([a-z][\w-]*)", code):
                assert name in COMMANDS, (page.name, code)
