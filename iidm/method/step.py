"""THE training step of IIDM (paper section "Holistic Framework", eqs. 1-11), from a batch to the updated teacher.

One step, in the order of the code below:
 1. the teacher labels the plain unlabeled crops, with a quality per image (eq. 6);
 2. half of the classes of each source crop are pasted onto them (inter), and of each labeled target crop (intra)
    (eqs. 1-4), and both mixes are strongly augmented;
 3. the student sees source, labeled target, inter and intra, each as a forward of its own (BatchNorm statistics are
    those of one branch), and its four weighted losses are summed (eq. 11);
 4. AdamW, then the teacher follows the student (eq. 5).
Nothing here reads a value on the host: what `__call__` returns lives on the device until a log point reads it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from iidm.config import Config
from iidm.kernels.jitter import normalize
from iidm.types import MEAN_RGB, STD_RGB, LabeledImages, Losses, Mixed, PseudoLabel, StepOutput, TrainBatch

from .losses import Branch, per_pixel, segmentation_loss, zero
from .mixing import mix, mix_onto_one
from .teacher import Teacher


class TrainStep:
    """The networks, the optimiser and the randomness of a run; calling it trains one step.

    Args:
        student: the network that is trained; float32 parameters, channels-last.
        teacher: its EMA.
        optimizer: over the student's parameters.
        config: the whole run's configuration.
        generator: source of every random draw of the step, on the device of the networks.
        amp_dtype: bfloat16, float16 or None (float32).
        scaler: for float16; a disabled one otherwise.
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

    @property
    def networks(self) -> dict[str, nn.Module]:
        """Both networks by name, for evaluation, pictures and checkpoints."""
        return {"student": self.student, "teacher": self.teacher.network}

    def __call__(self, batch: TrainBatch, step: int) -> StepOutput:
        """Train one step. `step` is 0-based; the learning rate has been set by the caller."""
        self.student.train()
        pseudo = self.pseudo_label(batch.unlabeled)
        inter, intra = self.mixes(batch, pseudo)
        losses = self.forward_backward(self.branches(batch, inter, intra))
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.teacher.follow(self.student, step)
        quality = pseudo.quality.mean() if pseudo else zero(self.device)
        return StepOutput(losses, quality, pseudo, inter, intra)

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

    def forward_backward(self, branches: list[Branch]) -> Losses:
        """Sum the gradients of all branches. Each is backpropagated at once, so only one is held in memory."""
        values = {name: zero(self.device) for name in Losses._fields}
        for branch in branches:
            with self._autocast():
                logits = self.student(branch.image)
            loss = segmentation_loss(logits, branch, align_corners=self.config.model.align_corners)
            self.scaler.scale(branch.loss_weight * loss).backward()
            values[branch.name] = per_pixel(loss.detach(), branch)
            values["total"] = values["total"] + branch.loss_weight * values[branch.name]
        return Losses(**values)

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
