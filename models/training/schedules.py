"""Schedules of the learning rate and of the moving average of the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDecay:
    """The published schedule: linear warm-up, then constant, with one step down.

    Attributes:
        warmup_steps: from ``warmup_from`` times the rate up to all of it.
        decay_at: step from which the rate is ``decay`` times itself; None: never.
    """

    warmup_steps: int = 200
    warmup_from: float = 0.001
    decay_at: int | None = None
    decay: float = 0.1

    def factor(self, step: int, steps: int) -> float:
        """What the learning rate of a run of ``steps`` steps is multiplied with."""
        factor = 1.0
        if step < self.warmup_steps:
            factor = self.warmup_from + (1 - self.warmup_from) * step / self.warmup_steps
        return (
            factor * self.decay if self.decay_at is not None and step >= self.decay_at else factor
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmCosine:
    """Linear warm-up over a share of the steps, then a half cosine down to zero."""

    warmup_share: float = 0.1

    def factor(self, step: int, steps: int) -> float:
        """What the learning rate of a run of ``steps`` steps is multiplied with."""
        warm = max(1, int(steps * self.warmup_share))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


Schedule = StepDecay | WarmCosine


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantEMA:
    """The published moving average: decay x (1 - exp(-t / 2000)), t counted from 10,560."""

    decay: float = 0.999
    over: float = 2000.0
    start: int = 10_560

    def at(self, step: int) -> float:
        """What stays of the average in this step."""
        return self.decay * (1 - math.exp(-(self.start + step) / self.over))


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupEMA:
    """For short runs: (1 + step) / (10 + step), until it reaches ``decay``."""

    decay: float = 0.995

    def at(self, step: int) -> float:
        """What stays of the average in this step."""
        return min(self.decay, (1 + step) / (10 + step))


Average = ConstantEMA | WarmupEMA
