"""THE training step of IIDM (paper section "Holistic Framework", eqs. 1-11), from a batch to the updated teacher.

One step, in the order of the code below:
 1. the teacher labels the plain unlabeled crops, with a quality per image (eq. 6);
 2. half of the classes of each source crop are pasted onto them (inter), and of each labeled target crop (intra)
    (eqs. 1-4), and both mixes are strongly augmented;
 3. the student sees source, labeled target, inter and intra, one after the other or in one pass, BatchNorm statistics
    being those of one branch either way, and its four weighted losses are summed (eq. 11);
 4. AdamW, then the teacher follows the student (eq. 5).
Nothing here reads a value on the host: what `__call__` returns lives on the device until a log point reads it.
On a GPU all of it is captured in one CUDA graph (graph.py).
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from iidm.config import Config
from iidm.kernels.jitter import normalize
from iidm.types import MEAN_RGB, STD_RGB, LabeledImages, Losses, Mixed, PseudoLabel, StepOutput, TrainBatch, UserError

from .graph import CaptureError, StepGraph
from .losses import Branch, per_pixel, segmentation_loss, zero
from .mixing import mix, mix_onto_one
from .teacher import Teacher, ema_decay_at


class TrainStep:
    """The networks, the optimiser and the randomness of a run; calling it trains one step.

    Args:
        student: the network that is trained; float32 parameters, channels-last. To merge branches it needs a method
            `branches(sizes)`, a context in which its norm layers keep their statistics apart (iidm.models.Network).
        teacher: its EMA.
        optimizer: over the student's parameters; for a captured step with `capturable` and learning rates in tensors.
        config: the whole run's configuration.
        generator: source of every random draw of the step, on the device of the networks.
        amp_dtype: bfloat16, float16 or None (float32).
        scaler: for float16; a disabled one otherwise.

    Raises:
        UserError: `--step.graph on` where there is no GPU, or (from a call) where the step cannot be captured.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        optimizer: torch.optim.Optimizer,
        config: Config,
        generator: torch.Generator,
        amp_dtype: torch.dtype | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.student, self.teacher, self.optimizer = student, teacher, optimizer
        self.config, self.generator, self.amp_dtype = config, generator, amp_dtype
        self.device = generator.device
        self.scaler = scaler or torch.amp.GradScaler(self.device.type, enabled=False)
        on_gpu, wish = self.device.type == "cuda", config.step
        if wish.graph == "on" and not on_gpu:
            raise UserError("--step.graph on needs a GPU: CUDA graphs are for its launches. Leave it at auto.")
        self.merged = wish.branches == "merged" or (wish.branches == "auto" and on_gpu)
        self._forward: nn.Module = student
        if wish.compile:
            # The networks themselves stay as they are, for evaluation at other sizes.
            self._forward = torch.compile(student, dynamic=False)  # type: ignore[assignment]
            teacher.compile()
        self._graph: StepGraph[list[TrainBatch], float, StepOutput] | None = None
        if on_gpu and wish.graph != "off":
            self._graph = StepGraph(self._train, [generator])

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Both networks by name, for evaluation, pictures and checkpoints."""
        return {"student": self.student, "teacher": self.teacher.network}

    def __call__(self, batches: list[TrainBatch], step: int) -> StepOutput:
        """Train one step. `step` is 0-based; the learning rate has been set by the caller.

        Args:
            batches: `config.step.accumulate` of them; their gradients make one step of the optimiser.

        Returns: losses and quality as means over the batches, the rest of the last one. The next call may overwrite it.
        """
        decay = ema_decay_at(step, self.config.teacher)
        if self._graph is None:
            return self._train(batches, decay)
        try:
            return self._graph(batches, decay)
        except CaptureError as error:
            if self.config.step.graph == "on":
                raise UserError(f"--step.graph on: the step cannot be captured ({error}). Use auto or off.") from error
            warnings.warn(f"The step cannot be captured in a CUDA graph and runs without: {error}", stacklevel=2)
            self._graph = None
            self.optimizer.zero_grad(set_to_none=True)
            return self._train(batches, decay)

    def _train(self, batches: list[TrainBatch], ema_decay: float) -> StepOutput:
        self.student.train()
        outputs = [self.learn(batch, share=1.0 / len(batches)) for batch in batches]
        self.update(ema_decay)
        if len(outputs) == 1:
            return outputs[0]
        losses = Losses(*(torch.stack(values).mean() for values in zip(*(o.losses for o in outputs), strict=True)))
        return outputs[-1]._replace(losses=losses, quality=torch.stack([o.quality for o in outputs]).mean())

    def learn(self, batch: TrainBatch, share: float = 1.0) -> StepOutput:
        """Add a batch's gradients to those of the student; `share` is its part of the step."""
        with record_function("iidm: pseudo-labels"):
            pseudo = self.pseudo_label(batch.unlabeled)
        with record_function("iidm: mixing"):
            inter, intra = self.mixes(batch, pseudo)
        losses = self.forward_backward(self.branches(batch, inter, intra), share)
        quality = pseudo.quality.mean() if pseudo else zero(self.device)
        return StepOutput(losses, quality, pseudo, inter, intra)

    def update(self, ema_decay: float) -> None:
        """One step of the optimiser, after which the teacher follows."""
        with record_function("iidm: optimizer"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        with record_function("iidm: EMA"):
            self.teacher.follow(self.student, ema_decay)

    def pseudo_label(self, unlabeled: Tensor | None) -> PseudoLabel | None:
        """The teacher's view of the plain unlabeled crops, uint8 [B,H,W,3]; None where no loss needs it."""
        if unlabeled is None:
            return None
        height, width = unlabeled.shape[1:3]
        with self._autocast():
            return self.teacher.pseudo_label(
                self._normalize(unlabeled), (height, width), align_corners=self.config.model.align_corners
            )

    def mixes(self, batch: TrainBatch, pseudo: PseudoLabel | None) -> tuple[Mixed | None, Mixed | None]:
        """The inter- and the intra-domain mix; with `one-xu-one-stream` the one image of both is the first."""
        loss, strategy = self.config.loss, self.config.mixing.strategy
        if pseudo is None or batch.unlabeled is None:
            return None, None
        source = batch.source if loss.inter_weight > 0 else None
        target = batch.target if loss.intra_weight > 0 else None
        image = batch.unlabeled
        if strategy == "one-xu-one-stream" and source and target:
            return mix_onto_one(source, target, image, pseudo, self.config, self.generator), None
        first = second = slice(None)
        if strategy == "two-xu-two-streams":
            first, second = slice(0, len(image) // 2), slice(len(image) // 2, None)
        return self._mix(source, image[first], _rows(pseudo, first)), self._mix(
            target, image[second], _rows(pseudo, second)
        )

    def branches(self, batch: TrainBatch, inter: Mixed | None, intra: Mixed | None) -> list[Branch]:
        """Every term of the loss whose weight is not 0."""
        loss = self.config.loss
        found: list[Branch] = []
        supervised = (
            ("source", batch.source, loss.source_weight),
            ("target", batch.target, loss.target_weight),
        )
        for name, labeled, weight in supervised:
            if labeled is not None and weight > 0:
                image = self._normalize(labeled.image)
                found.append(Branch(name, image, labeled.label, None, weight, loss.supervised_normalizer))
        one_stream = inter is not None and intra is None and self.config.mixing.strategy == "one-xu-one-stream"
        inter_weight = loss.inter_weight + (loss.intra_weight if one_stream else 0.0)
        for name, mixed, weight in (("inter", inter, inter_weight), ("intra", intra, loss.intra_weight)):
            if mixed is not None:
                found.append(Branch(name, mixed.image, mixed.label, mixed.weight, weight, loss.mixed_normalizer))
        return found

    def forward_backward(self, branches: list[Branch], share: float = 1.0) -> Losses:
        """Add up the gradients of all branches, times `share` where the loss is a mean and not a sum over pixels."""
        factors = [b.loss_weight * (1.0 if b.normalizer == "sum" else share) for b in branches]
        with self._autocast():  # around all passes: weights are cast once
            run = self._merged if self.merged else self._one_by_one
            losses = run(branches, factors)
        values = {name: zero(self.device) for name in Losses._fields}
        for branch, loss in zip(branches, losses, strict=True):
            values[branch.name] = per_pixel(loss, branch)
            values["total"] = values["total"] + branch.loss_weight * values[branch.name]
        return Losses(**values)

    def _one_by_one(self, branches: list[Branch], factors: list[float]) -> list[Tensor]:
        """A pass and a backward for each branch: one of them is held in memory."""
        losses = []
        for branch, factor in zip(branches, factors, strict=True):
            with record_function("iidm: student forward"):
                loss = self._loss(self._forward(branch.image), branch)
            self._backward(factor * loss)
            losses.append(loss.detach())
        return losses

    def _merged(self, branches: list[Branch], factors: list[float]) -> list[Tensor]:
        """One pass over all branches and one backward."""
        sizes = [len(branch.image) for branch in branches]
        with record_function("iidm: student forward"), self.student.branches(sizes):  # type: ignore[operator]
            logits = self._forward(torch.cat([branch.image for branch in branches]))
        losses = [self._loss(part, branch) for part, branch in zip(logits.split(sizes), branches, strict=True)]
        self._backward(torch.stack([factor * loss for factor, loss in zip(factors, losses, strict=True)]).sum())
        return [loss.detach() for loss in losses]

    def _loss(self, logits: Tensor, branch: Branch) -> Tensor:
        with record_function("iidm: loss"):
            return segmentation_loss(logits, branch, align_corners=self.config.model.align_corners)

    def _backward(self, loss: Tensor) -> None:
        with record_function("iidm: backward"), torch.autocast(self.device.type, enabled=False):
            self.scaler.scale(loss).backward()

    def _mix(self, labeled: LabeledImages | None, unlabeled: Tensor, pseudo: PseudoLabel) -> Mixed | None:
        return None if labeled is None else mix(labeled, unlabeled, pseudo, self.config, self.generator)

    def _normalize(self, image: Tensor) -> Tensor:
        return normalize(image, mean=MEAN_RGB, std=STD_RGB)

    def _autocast(self) -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = torch.autocast(
            self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None
        )
        return context


def _rows(pseudo: PseudoLabel, rows: slice) -> PseudoLabel:
    return PseudoLabel(pseudo.label[rows], pseudo.quality[rows])
