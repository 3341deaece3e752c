"""The method: what IIDM computes in one training step. `step.py` is the file to open first."""

from .step import TrainStep

__all__ = ["TrainStep"]
