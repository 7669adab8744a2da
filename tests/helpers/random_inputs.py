"""Inputs of a network without a log."""

from __future__ import annotations

from dataclasses import replace

from datasets.model_inputs import InputSpec, ModelInputs
from datasets.sources.example import example_inputs


def random_inputs(spec: InputSpec, *, frames: int = 1, seed: int = 0) -> ModelInputs:
    """A made-up frame with one sweep."""
    return example_inputs(replace(spec, past_sweeps=0), frames=frames, seed=seed)
