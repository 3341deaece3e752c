"""The command `iidm`, and what `python -m iidm.COMMAND` begins with.

It reads the command line before it imports what takes seconds (torch, DALI): help and mistakes are answered at once,
and Ctrl-C meanwhile is one line.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import NoReturn

COMMANDS = {
    "inspect": "iidm.inspect",
    "train": "iidm.train",
    "predict": "iidm.predict",
    "evaluate": "iidm.evaluate",
    "report": "iidm.report",
    "select": "iidm.select",
    "export": "iidm.export",
    "prepare": "iidm.prepare",
    "study": "iidm.study",
}
"""Command -> its module: `main(argv)` runs it, the first line of its docstring says what it is. What reads its words
without torch is a line in `cli.PARSERS`; a module that imports no torch needs none."""


def main() -> NoReturn:
    """The command `iidm`."""
    words = sys.argv[1:]
    if words and words[0] in COMMANDS:
        run_command(words[0], words[1:])
    _quit_on_signals()
    from iidm.cli import run_main

    run_main(_answer)
    sys.exit(0)


def run_command(command: str, argv: Sequence[str] | None = None) -> NoReturn:
    """Run a command on the words of the command line, or on `argv`, and end the process."""
    _quit_on_signals()
    if command == "train" and hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # but for the steps there is nothing to be saved (InterruptFlag)
    words = sys.argv[1:] if argv is None else list(argv)
    _let_waiting_threads_sleep()
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun: each process would repeat what torch's C++ warns of
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from iidm.cli import PARSERS, run_main

    if command in PARSERS:
        run_main(PARSERS[command], words)  # ends the process where the words ask for help or are wrong
    # Worker processes import what the main module's spec names: of `python -m iidm.train` that would be torch and all,
    # of which they need little.
    sys.modules["__main__"].__spec__ = find_spec(__name__)
    module = import_module(COMMANDS[command])
    if signal.getsignal(signal.SIGINT) is _quit:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run_main(module.main, words)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_rank()
    sys.exit(0)


def end_rank() -> NoReturn:
    """End a process of torchrun that has done its part, without the end of the interpreter.

    DistributedDataParallel imports torch._dynamo, and then a process group's threads outlive its end (torch 2.13; as in
    pytorch #190489): one process in about thirty aborted there. torchrun would call a run failed that is done, and end
    the first process while it writes.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _let_waiting_threads_sleep() -> None:
    """Have threads of GNU's OpenMP that wait for each other sleep soon, unless the environment says when they do.

    As a rule they spin 300,000 rounds first, which is milliseconds. Where another program has the core of the thread
    that is awaited, the spinning keeps it from one. 10,000 rounds bridge the gaps between ops as well
    (benchmarks/NOTES.md, "Threads that wait for each other"). Before torch is imported, as OpenMP reads this once.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def _answer(words: Sequence[str]) -> None:
    """What `iidm` says where its first word is no command."""
    if words and words[0] == "--version":
        from iidm import __version__

        print(f"iidm {__version__}")
    elif words and words[0] not in ("-h", "--help", "--help-all"):
        from iidm.config import unknown_name

        raise unknown_name("command", words[0], COMMANDS)
    else:
        width = max(map(len, COMMANDS)) + 2
        lines = [f"  {name:{width}}{_summary(module)}" for name, module in COMMANDS.items()]
        called = "python -m iidm" if Path(sys.argv[0]).name == "__main__.py" else "iidm"
        about = "Networks that tell for each pixel of an image what it shows, learned from few labeled images."
        usage = f"usage: {called} COMMAND ..."
        print("\n".join([usage, "", about, "", *lines, "", f"{called} COMMAND --help tells its options."]))


def _summary(module: str) -> str:
    """The first line of a module's docstring, which is not imported for it."""
    import ast

    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def _quit_on_signals() -> None:
    """Until the command runs nothing is begun, and nothing is there to be saved."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _quit)


def _quit(number: int, frame: FrameType | None) -> None:
    # Not an exception: an extension that is being imported may swallow one, or print it and go on.
    os.write(2, b"iidm: stopped.\n")
    os._exit(128 + number)
