"""The runs of a study on the machines of a Ray cluster, in a folder that all of them share.

Ray finds a free GPU, starts a process there, and tells when that process or its machine is gone. The process starts the
run as `local.py` does here; it ends with the study, and the run with it. What a run writes lies in the shared folder:
any machine can go on with it. Its results come back through Ray: the study alone writes runs.jsonl.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import iidm
from iidm.config import Config
from iidm.types import UserError

from .local import POLL_S, Ended, end_of, source_commit, start_process
from .plan import Run
from .preflight import Task, look_of
from .progress import counted, say

Node = Mapping[str, Any]
"""A machine of the cluster as `ray.nodes` tells it."""
START = (
    "Start Ray with `ray start --head` on one machine and `ray start --address=THAT-MACHINE:6379` on the others, then"
    " the study on one of them."
)


@dataclass(frozen=True)
class Share:
    """What each run gets of its machine: a part of a GPU, or so many cores."""

    runs_per_gpu: int
    """0: the runs use no GPU."""
    cores: int

    @property
    def needs(self) -> dict[str, float]:
        """As Ray's options have it, which count in ten-thousandths."""
        if self.runs_per_gpu:
            return {"num_gpus": 10_000 // self.runs_per_gpu / 10_000, "num_cpus": 0}
        return {"num_gpus": 0, "num_cpus": self.cores}

    def room_on(self, node: Node) -> int:
        """How many runs a machine takes at once."""
        has = node["Resources"]
        return int(has.get("GPU", 0)) * self.runs_per_gpu if self.runs_per_gpu else int(has.get("CPU", 0)) // self.cores

    def environment_on(self, node: Node) -> dict[str, str]:
        """Of a run there: its share of the cores, unless the user has said how many threads."""
        threads = max(1, int(node["Resources"].get("CPU", 1)) // max(1, self.room_on(node)))
        return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads)}


@dataclass(frozen=True)
class Job:
    """A run at work, or one that waits for a GPU that somebody else has."""

    run: Run
    actor: Any
    machine: Any
    """Ray's promise of the machine's name: kept when the run is at work."""


class RayCluster:
    """The `Place` of runs on a cluster."""

    def __init__(self, task: Task, share: Share, jobs: int | None) -> None:
        import ray

        self._ray, self._task, self._share, self._jobs = ray, task, share, jobs
        self._look = ray.remote(look_of(iidm.__version__, source_commit()))
        self._actor = ray.remote(RunHere)
        self._looks: dict[Any, Node] = {}
        self._seen: set[str] = set()
        self._fit: dict[str, Node] = {}
        self._working: dict[Any, Job] = {}
        self._started = self._waits = False
        task.token_file.write_text(task.token)

    def room(self) -> int:
        """How many runs may be started now.

        Raises: UserError for a machine that could not do the runs, where that is known before the first one starts;
        a machine that comes later and could not is left aside.
        """
        alive = {node["NodeID"]: node for node in self._ray.nodes() if node["Alive"] and self._share.room_on(node)}
        if not self._started and not alive:
            what = "a GPU" if self._share.runs_per_gpu else counted(self._share.cores, "core")
            raise UserError(f"The cluster has no machine with {what}. {START}")
        for name in alive.keys() - self._seen:
            self._seen.add(name)
            look = self._look.options(num_cpus=0, max_retries=0, label_selector=_one_of([name]))
            self._looks[look.remote(pickle.dumps(self._task))] = alive[name]
        self._hear_of_looks()
        if self._looks and not self._started:
            return 0
        self._started = True
        most = sum(self._share.room_on(node) for name, node in self._fit.items() if name in alive)
        if not self._looks and self._waits != (not most):
            self._waits = not most
            say("no machine is left; the study waits for one" if self._waits else "there is a machine again")
        return (most if self._jobs is None else min(most, self._jobs)) - len(self._working)

    def start(self, run: Run) -> None:
        """Begin a run, or go on with it, on a machine that has room."""
        environments = {name: self._share.environment_on(node) for name, node in self._fit.items()}
        actor = self._actor.options(
            **self._share.needs, max_concurrency=2, max_restarts=0, label_selector=_one_of(self._fit)
        ).remote(run, self._task, environments)
        machine = actor.machine.remote()
        self._working[actor.work.remote()] = Job(run, actor, machine)

    def ended(self) -> list[tuple[Run, Ended]]:
        """The runs that are over since the last look."""
        over = [(ref, self._working.pop(ref)) for ref in self._ready(self._working)]
        return [(job.run, self._end_of(ref, job)) for ref, job in over]

    def stop(self) -> None:
        """Ask every run to save and to end."""
        for job in self._working.values():
            if self._ready([job.machine]):
                job.actor.stop.remote()
            else:
                self._ray.kill(job.actor)

    def close(self) -> None:
        """End what is still at work, as it is."""
        for job in self._working.values():
            self._ray.kill(job.actor)
        self._ray.shutdown()

    def _hear_of_looks(self) -> None:
        for ref in self._ready(self._looks):
            node, is_lost = self._looks.pop(ref), False
            try:
                error = self._ray.get(ref)
            except self._ray.exceptions.RayError as lost:
                # It has died, perhaps before the study began: Ray notices late, and lists it as alive meanwhile.
                error = f"it could not be asked ({_first_line(lost)})"
                is_lost = not isinstance(lost, self._ray.exceptions.RayTaskError)
            if error is None:
                self._fit[node["NodeID"]] = node
                say(f"{node['NodeManagerHostname']}: {counted(self._share.room_on(node), 'run')} at once")
            elif self._started or is_lost:
                say(f"{node['NodeManagerHostname']} is left aside: {error}")
            else:
                raise UserError(f"{node['NodeManagerHostname']}: {error}")

    def _ready(self, promises: Iterable[Any]) -> list[Any]:
        some = list(promises)
        return list(self._ray.wait(some, num_returns=len(some), timeout=0)[0]) if some else []

    def _end_of(self, ref: Any, job: Job) -> Ended:
        errors = self._ray.exceptions
        try:
            end: Ended = self._ray.get(ref)
        except errors.RayTaskError as error:  # of the folder or of the process there
            return Ended(None, f"{self._name_of(job)}: {_first_line(error.cause)}")
        except errors.RayError as lost:
            self._ray.kill(job.actor)  # it may only be out of reach, and shall not come back beside its successor
            self._seen.clear()  # Ray may not know for a minute that a machine is gone: all are asked again
            self._fit.clear()
            return Ended(None, f"{self._name_of(job)} is gone ({type(lost).__name__})", was_killed=True)
        return replace(end, line=f"{end.line} on {self._name_of(job)}") if end.was_killed else end

    def _name_of(self, job: Job) -> str:
        try:
            return str(self._ray.get(job.machine, timeout=0))
        except self._ray.exceptions.RayError:  # it never began
            return "its machine"


class RunHere:
    """A run on the machine that Ray chose, as a process that ends with Ray's own."""

    def __init__(self, run: Run, task: Task, environments: Mapping[str, Mapping[str, str]]) -> None:
        import ray

        self._run, self._task = run, task
        self._environment = environments[ray.get_runtime_context().get_node_id()]
        self._stopped = False

    def machine(self) -> str:
        """The name of the machine."""
        return socket.gethostname()

    def work(self) -> Ended:
        """Wait for the run's end."""
        os.chdir(self._task.working_folder)
        commit, told = source_commit(), False
        process = start_process(self._run, self._task.folder, self._task.strips, self._environment)
        while process.poll() is None:
            if self._stopped and not told:
                process.terminate()
                told = True
            time.sleep(POLL_S)
        return end_of(self._run, self._task.folder, process.returncode, commit)

    def stop(self) -> None:
        """Ask the run to save and to end."""
        self._stopped = True


def connect(config: Config, runs_per_gpu: int) -> Share:
    """Join the cluster from a machine of it, and say what each run gets there.

    Raises: UserError where Ray is not installed or no cluster is found.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--on ray needs Ray, which is not installed here: pip install 'iidm[cluster]'.") from None
    try:
        with _silent_stderr():  # where nobody answers Ray says so each second
            ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"--on ray finds no cluster: {_first_line(error)} {START}") from None
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    has_gpus = any(node.get("GPU", 0) for node in nodes)
    if config.device == "cuda" or config.device == "auto" and has_gpus:
        return Share(runs_per_gpu, 0)
    threads = os.environ.get("OMP_NUM_THREADS", "")
    cores = min((int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1), default=1)
    return Share(0, int(threads) if threads.isdecimal() else cores)


@contextmanager
def _silent_stderr() -> Iterator[None]:
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _one_of(names: Iterable[str]) -> dict[str, str]:
    return {"ray.io/node-id": f"in({','.join(names)})"}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
