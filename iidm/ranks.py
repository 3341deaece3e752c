"""The processes that train one network together, as torchrun starts them; one process alone is the same with one rank.

    torchrun --nproc-per-node 4 -m iidm.train ... --run-dir runs/name

Every rank draws its own images and computes its own gradients; torch's DistributedDataParallel sums them while the
backward still runs, once a step. After it all ranks hold the same networks, so that the first can write for all.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .types import AgreedError, UserError

PATIENCE = timedelta(hours=6)
"""How long a rank waits for another that draws scenes, reads labels or writes. One that has died is not waited for: its
connection breaks, and torchrun ends the others."""

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among those of this machine."""
    local_size: int = 1
    restarts: int = 0
    """How often torchrun has started all of them again."""
    may_restart: bool = False

    @classmethod
    def of_environment(cls) -> Ranks:
        """As torchrun says; one rank where it has not started this process.

        Raises: UserError where a part of torchrun's variables is missing.
        """
        environment = os.environ
        if "WORLD_SIZE" not in environment or "RANK" not in environment:
            return cls()
        try:
            names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
            rank, size, local_rank, local_size = (int(environment[name]) for name in names)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"RANK and WORLD_SIZE are set, but not all of torchrun's variables ({error}). Start several processes"
                " with torchrun --nproc-per-node N -m iidm.train ..., and one with RANK and WORLD_SIZE unset."
            ) from None
        restarts = int(environment.get("TORCHELASTIC_RESTART_COUNT", 0))
        may_restart = int(environment.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0
        return cls(rank, size, local_rank, local_size, restarts, may_restart)

    @property
    def is_first(self) -> bool:
        """Whether this rank writes for all."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is no other."""
        return self.size == 1

    @contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """Meanwhile the ranks can talk to each other: over NCCL what lies on GPUs, over gloo the rest.

        Raises: UserError where another rank ends meanwhile.
        """
        if self.is_alone:
            yield
            return
        # torchrun keeps its store over a restart (seen with torch 2.13): without a name of its own the new start would
        # meet the addresses of processes that are dead.
        store, _, _ = next(dist.rendezvous("env://"))
        store = dist.PrefixStore(f"start {self.restarts}", store)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=PATIENCE)
        # NCCL takes leave of all ranks and of what is still under way. One that ends alone would wait for ranks that
        # wait for it, and torchrun would never learn of its error: it goes as it is, and torchrun ends the others.
        leaves_together = backend == "gloo"
        try:
            yield
            leaves_together = True
        except AgreedError:
            leaves_together = True
            raise
        except RuntimeError as error:
            if isinstance(error, dist.DistError) or "gloo" in str(error):
                # torchrun tells which; a traceback of each of those that are left would hide it.
                raise UserError("Another process of this run has ended, and with it this one.") from error
            raise
        finally:
            if leaves_together:
                dist.destroy_process_group()

    @contextmanager
    def first_on_each_machine(self) -> Iterator[None]:
        """One rank of a machine runs the body, then the others: they find what it has put into the cache."""
        if self.local_rank > 0:
            self.wait()
        yield
        if self.local_rank == 0:
            self.wait()

    def wait(self) -> None:
        """Until all ranks are here."""
        self.sum(torch.zeros(1))

    def from_first(self, value: T) -> T:
        """What the first rank has, on all of them; anything that can be pickled."""
        if self.is_alone:
            return value
        values = [value]
        dist.broadcast_object_list(values, 0, device=torch.device("cpu"))
        return values[0]

    def gather(self, value: T) -> list[T]:
        """What each rank has, on all of them; anything that can be pickled."""
        if self.is_alone:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def any(self, *flags: bool) -> list[bool]:
        """For each flag whether a rank has it: what all of them do at the same step."""
        if self.is_alone:
            return list(flags)
        told = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return [bool(flag) for flag in told]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place of each one's."""
        if not self.is_alone:
            dist.all_reduce(tensor)
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all ranks, in place of each one's."""
        return self.sum(tensor).div_(self.size)

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This rank's part of what all have; the parts have the same size but for one."""
        return items[self.rank :: self.size]


ALONE = Ranks()


class Together:
    """The networks of all ranks, trained as one.

    Args:
        ranks: more than one.
        trained: what gets gradients, the same on every rank (the first one's weights are given to the others).
    """

    def __init__(self, ranks: Ranks, trained: Mapping[str, nn.Module]) -> None:
        self.ranks = ranks
        # Buffers are averaged after each step, not given out before each pass: passes are many.
        # A pass need not use every parameter: a branch may have a head of its own.
        # Of 1x1 convolutions, whose weights lie the same in either layout: torch compares the strides alone.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # newer releases have another name for broadcast_buffers
            passes = _Passes(trained)
            self._module = DistributedDataParallel(passes, broadcast_buffers=False, find_unused_parameters=True)
        self._module.register_comm_hook(None, lambda state, bucket: _sum_of_ranks(bucket))

    def adds_up(self, now: bool) -> AbstractContextManager[None]:
        """Around a pass and its backward: in the last of a step (`now`) the ranks' gradients are summed, in the others
        each rank adds them to its own."""
        context: AbstractContextManager[None] = nullcontext() if now else self._module.no_sync()
        return context

    def run(self, compute: Callable[[], T]) -> T:
        """Compute a loss, and whatever else, from the trained modules; a nest of tuples, lists and dicts of tensors."""
        result: T = self._module(compute)
        return result

    @torch.no_grad()
    def average_buffers(self, modules: Sequence[nn.Module]) -> None:
        """Give all ranks the mean of what each remembers (BatchNorm's statistics, prototypes); of what is no fraction,
        what the first has."""
        buffers = list(dict.fromkeys(b for module in modules for b in module.buffers()))
        for dtype in dict.fromkeys(b.dtype for b in buffers):
            alike = [b for b in buffers if b.dtype is dtype]
            flat = torch.cat([b.reshape(-1) for b in alike])
            if dtype.is_floating_point:
                self.ranks.mean(flat)
            else:
                dist.broadcast(flat, 0)
            parts = flat.split([b.numel() for b in alike])
            torch._foreach_copy_(alike, [part.view_as(b) for part, b in zip(parts, alike, strict=True)])


class _Passes(nn.Module):
    """What DistributedDataParallel wraps: its forward is any computation with the trained modules."""

    def __init__(self, trained: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.trained = nn.ModuleDict(trained)

    def forward(self, compute: Callable[[], T]) -> T:
        return compute()


def _sum_of_ranks(bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """The sum and not torch's mean: a loss may be a sum over pixels, and each batch's share is in its loss already."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    done: torch.futures.Future[Tensor] = work.get_future().then(lambda future: future.value()[0])
    return done
