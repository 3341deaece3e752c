"""THE training step of IIDM (paper section "Holistic Framework", eqs. 1-11), from a batch to the updated teacher.

One step, in the order of the code below:
 1. the teacher labels the plain unlabeled crops, with a quality per image (eq. 6);
 2. half of the classes of each source crop are pasted onto them (inter), and of each labeled target crop (intra)
    (eqs. 1-4), and both mixes are strongly augmented;
 3. the student sees source, labeled target, inter and intra, one after the other or in one pass, BatchNorm statistics
    being those of one branch either way, and its four weighted losses are summed (eq. 11);
 4. AdamW, then the teacher follows the student (eq. 5).
What 1 to 3 are is the method's (base.py: IIDM; catalog/: the others); how they are run is written here, once.
Nothing here reads a value on the host: what `__call__` returns lives on the device until a log point reads it.
On a GPU all of it is captured in one CUDA graph (graph.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from iidm import kernels
from iidm.config import Config
from iidm.ranks import ALONE, Ranks, Together
from iidm.types import Losses, StepOutput, TrainBatch, UserError

from .base import Method, Scene
from .graph import CaptureError, StepGraph
from .losses import Branch, Output, Terms, branch_terms, per_pixel, zero
from .memories import Memories
from .teacher import Teacher, ema_decay_at

Found = TypeVar("Found")


class TrainStep:
    """The networks, the optimiser and the randomness of a run; calling it trains one step.

    Args:
        student: the network that is trained; float32 parameters, channels-last. To merge branches it needs a method
            `branches(sizes)`, a context in which its norm layers keep their statistics apart, and for random layers
            `draw_from(generator)` (iidm.models.Network). One with `draw_box` sees a window of each image at full
            resolution (iidm.models.hrda).
        teacher: its EMA.
        optimizer: over the student's parameters; for a captured step with `capturable` and learning rates in tensors.
        config: the whole run's configuration.
        generators: sources of every random draw, on the device of the networks: one for each of the batches of a step,
            so that a batch's draws are the same whoever else draws.
        amp_dtype: bfloat16, float16 or None (float32).
        scaler: for float16; a disabled one otherwise.
        method: what is computed; None: IIDM.
        ranks: this process among those that train together.

    Raises:
        UserError: `--step.graph on` where there is no GPU, or (from a call) where the step cannot be captured.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        optimizer: torch.optim.Optimizer,
        config: Config,
        generators: Sequence[torch.Generator],
        amp_dtype: torch.dtype | None = None,
        scaler: torch.amp.GradScaler | None = None,
        method: Method | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.student, self.teacher, self.optimizer = student, teacher, optimizer
        self.method = method or Method(config, student)
        self.config, self.generators, self.amp_dtype = config, tuple(generators), amp_dtype
        assert len(self.generators) == config.step.accumulate
        self.device = self.generators[0].device
        self.scaler = scaler or torch.amp.GradScaler(self.device.type, enabled=False)
        on_gpu, wish = self.device.type == "cuda", config.step
        if wish.graph == "on" and not on_gpu:
            raise UserError("--step.graph on needs a GPU: CUDA graphs are for its launches. Leave it at auto.")
        if wish.graph == "on" and not ranks.is_alone:
            raise UserError("--step.graph on is for one process: with several the step runs without. Leave it at auto.")
        self._draw_from(self.generators[0])
        self.merged = wish.branches == "merged" or (wish.branches == "auto" and on_gpu)
        self._forward: nn.Module = student
        self._see: Callable[..., tuple[Tensor, ...]] | None = getattr(student, "look", None)
        if wish.compile:
            # The networks themselves stay as they are, for evaluation at other sizes.
            self._forward = torch.compile(student, dynamic=False)  # type: ignore[assignment]
            self._see = self._see and torch.compile(self._see, dynamic=False)
            teacher.compile()
        self._graph: StepGraph[list[TrainBatch], float, StepOutput] | None = None
        # IIDM_DEBUG reads labels on the host, which no capture allows; what several ranks say to each other is not
        # captured either.
        capturable = ranks.is_alone and not kernels.checks_values()
        if on_gpu and (wish.graph == "on" or (wish.graph == "auto" and capturable)):
            self._graph = StepGraph(self._train, self.generators, self.device)
        self.ranks = ranks
        self._together = None
        if not ranks.is_alone:
            self._together = Together(ranks, {"student": student, "method": self.method})

    @property
    def generator(self) -> torch.Generator:
        """That of a step's first batch, which is the only one without `step.accumulate`."""
        return self.generators[0]

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Both networks by name, for evaluation and pictures."""
        return {"student": self.student, "teacher": self.teacher.network}

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The networks, and the method where it learns or remembers something: what a checkpoint holds."""
        return {**self.networks, **({"method": self.method} if self.method.state_dict() else {})}

    def __call__(self, batches: list[TrainBatch], step: int) -> StepOutput:
        """Train one step. `step` is 0-based; the learning rate has been set by the caller.

        Args:
            batches: `config.step.accumulate` of them; their gradients make one step of the optimiser.

        Returns: losses and quality as means over the batches, the rest of the last one. The next call may overwrite it.
        """
        decay = ema_decay_at(step, self.config.teacher)
        self.method.progress.fill_(step / self.config.max_steps)
        if self._graph is None:
            return self._train(batches, decay)
        try:
            return self._graph(batches, decay)
        except CaptureError as error:
            if self.config.step.graph == "on":
                raise UserError(f"--step.graph on: the step cannot be captured ({error}). Use auto or off.") from error
            reason = str(error)
        # No more inside the handler: the error's traceback holds all that the capture had allocated.
        warnings.warn(f"The step cannot be captured in a CUDA graph and runs without: {reason}", stacklevel=2)
        self._graph = None
        self.optimizer.zero_grad(set_to_none=True)
        return self._train(batches, decay)

    def _train(self, batches: list[TrainBatch], ema_decay: float) -> StepOutput:
        share = 1.0 / (len(batches) * self.ranks.size)
        last = len(batches) - 1
        modules = [*self.networks.values(), self.method]
        if len(batches) == 1:
            outputs = [self.learn(batches[0], share)]
        else:
            memories = Memories(modules)
            outputs = []
            for number, batch in enumerate(batches):
                with memories.of_one_batch():
                    outputs.append(self.learn(batch, share, number, number == last))
            memories.settle()
        if self._together is not None:
            self._together.average_buffers(modules)
        self.update(ema_decay)
        if len(outputs) == 1:
            return outputs[0]
        losses = Losses(*(torch.stack(values).mean() for values in zip(*(o.losses for o in outputs), strict=True)))
        return outputs[-1]._replace(losses=losses, quality=torch.stack([o.quality for o in outputs]).mean())

    def _draw_from(self, generator: torch.Generator) -> None:
        """Give the random layers their source."""
        for network in (self.student, *self.method.modules()):
            draw_from: Callable[[torch.Generator], None] | None = getattr(network, "draw_from", None)
            if draw_from is not None:
                draw_from(generator)

    def learn(self, batch: TrainBatch, share: float = 1.0, number: int = 0, is_last: bool = True) -> StepOutput:
        """Add a batch's gradients to those of the student.

        Args:
            batch: the images.
            share: its part of the step.
            number: which of the step's batches it is.
            is_last: whether it is the last one, with which the gradients of all ranks are summed.
        """
        generator = self.generators[number]
        if len(self.generators) > 1:
            self._draw_from(generator)
        pseudo = None
        if self.method.labels_images and batch.unlabeled is not None:
            with record_function("iidm: pseudo-labels"), self._autocast():
                pseudo = self.method.pseudo_label(self.teacher, batch.unlabeled)
                if batch.beyond is not None:  # there 255, elsewhere as it is
                    pseudo = pseudo._replace(label=pseudo.label | batch.beyond)
        self.student.train()  # here, as it may be the student that has just labeled
        with record_function("iidm: mixing"):
            mixes = self.method.mixes(batch, pseudo, generator)
        scene = Scene(batch, pseudo, mixes, self.student, self.teacher, generator)
        with self._autocast():  # around all passes: weights are cast once
            branches = self.method.branches(scene)
            if self.method.balance is not None:
                branches = self.method.balance(branches)
            if self.method.class_weight is not None:
                branches = [b._replace(class_weight=self.method.class_weight) for b in branches]
            draw_box: Callable[..., Tensor] | None = getattr(self.student, "draw_box", None)
            if draw_box is not None:  # all of them before the first pass, so that merged branches have the same
                branches = [b._replace(box=draw_box(b.image.shape[2:], generator)) for b in branches]
            losses = self.forward_backward(branches, share, is_last)
        quality = pseudo.quality.mean() if pseudo else zero(self.device)
        return StepOutput(losses, quality, pseudo, mixes.inter, mixes.intra[0] if mixes.intra else None)

    def update(self, ema_decay: float) -> None:
        """One step of the optimiser, after which the teacher follows."""
        with record_function("iidm: optimizer"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        with record_function("iidm: EMA"):
            self.teacher.follow(self.student, ema_decay)

    def forward_backward(self, branches: list[Branch], share: float = 1.0, is_last: bool = True) -> Losses:
        """Add up the gradients of all branches, times `share` where the loss is a mean and not a sum over pixels."""
        run = self._merged if self.merged else self._one_by_one
        values = {name: zero(self.device) for name in Losses._fields}
        views = {b.name: sum(other.name == b.name for other in branches) for b in branches}
        for branch, terms in zip(branches, run(branches, share, is_last), strict=True):
            if terms.cross_entropy is not None:
                value = per_pixel(terms.cross_entropy, branch)
                values[branch.name] = values[branch.name] + value / views[branch.name]
                values["total"] = values["total"] + branch.loss_weight * value
            if terms.auxiliary is not None:
                values["auxiliary"] = values["auxiliary"] + terms.auxiliary
                values["total"] = values["total"] + branch.objective_weight * terms.auxiliary
        return Losses(**values)

    def _one_by_one(self, branches: list[Branch], share: float, is_last: bool) -> list[Terms]:
        """A pass and a backward for each branch: one of them is held in memory."""
        found = []
        for number, branch in enumerate(branches, start=1):

            def compute(branch: Branch = branch) -> tuple[Tensor, Terms]:
                with record_function("iidm: student forward"):
                    out = self._look(branch.image, [branch])
                terms = self._terms(out, branch)
                return terms.weighted(branch, share), terms.detach()

            found.append(self._run(compute, is_last and number == len(branches)))
        return found

    def _merged(self, branches: list[Branch], share: float, is_last: bool) -> list[Terms]:
        """One pass over all branches (one for each network), and one backward."""

        def compute() -> tuple[Tensor, list[Terms]]:
            terms: dict[int, Terms] = {}
            for network in dict.fromkeys(branch.network for branch in branches):
                own = [(i, branch) for i, branch in enumerate(branches) if branch.network is network]
                sizes = [len(branch.image) for _, branch in own]
                keeper = self.student if network is None else network
                with record_function("iidm: student forward"), keeper.branches(sizes):  # type: ignore[operator]
                    out = self._look(torch.cat([branch.image for _, branch in own]), [branch for _, branch in own])
                for own_out, (i, branch) in zip(out.split(sizes), own, strict=True):
                    terms[i] = self._terms(own_out, branch)
            in_order = [terms[i] for i in range(len(branches))]
            losses = [term.weighted(branch, share) for term, branch in zip(in_order, branches, strict=True)]
            return torch.stack(losses).sum(), [term.detach() for term in in_order]

        return self._run(compute, is_last)

    def _run(self, compute: Callable[[], tuple[Tensor, Found]], is_last: bool) -> Found:
        """A pass and its backward; after the last of a step the gradients are those of all ranks."""
        if self._together is None:
            loss, found = compute()
            self._backward(loss)
        else:
            with self._together.adds_up(is_last):
                loss, found = self._together.run(compute)
                self._backward(loss)
        return found

    def _look(self, image: Tensor, branches: list[Branch]) -> Output:
        """What the network of the branches says of their images, which are those of `image`."""
        network = branches[0].network
        boxes = [branch.box for branch in branches if branch.box is not None]
        if not boxes and not any(branch.objective for branch in branches):
            return Output((network or self._forward)(image))
        see: Callable[..., tuple[Tensor, ...]] | None = self._see if network is None else network.look  # type: ignore[assignment]
        assert see is not None, "a term on features needs a network that tells them"
        return Output(*(see(image, boxes) if boxes else see(image)))

    def _terms(self, out: Output, branch: Branch) -> Terms:
        detail = None
        if out.detail is not None:
            cut: Callable[..., Tensor] = self.student.detail_of  # type: ignore[assignment]
            label, weight = (None if part is None else cut(part, branch.box) for part in (branch.label, branch.weight))
            detail = branch._replace(label=label, weight=weight)
        align_corners, share = self.config.model.align_corners, self.config.loss.detail_weight
        with record_function("iidm: loss"):
            return branch_terms(out, branch, align_corners=align_corners, detail=detail, detail_weight=share)

    def _backward(self, loss: Tensor) -> None:
        with record_function("iidm: backward"), torch.autocast(self.device.type, enabled=False):
            self.scaler.scale(loss).backward()

    def _autocast(self) -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = torch.autocast(
            self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None
        )
        return context
