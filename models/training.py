"""The optimisation loop that teacher and student share.

AdamW, warm-up and cosine learning rate, gradient-norm clipping and a moving average of the weights.
Per step only some BEV columns go through the head and the loss, half of them drawn from columns
that hold objects. The state on disk continues a stopped run.

Legend: B frames, X Y Z voxels, M sampled columns, K classes.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.errors import SetupError
from datasets.inputs import ModelInputs
from datasets.taxonomy import Taxonomy
from datasets.training_sets import FrameSet, Sample
from models.losses import voxel_cross_entropy


class ColumnHead(Protocol):
    def columns(self, bev: Tensor, column_index: Tensor) -> Tensor: ...


class OccupancyNetwork(Protocol):
    """What the loop needs of a network; ``FusionTeacher`` and ``CameraStudent`` have it."""

    occ_head: ColumnHead

    def bev(self, inputs: ModelInputs) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """One training run.

    Attributes:
        steps: optimisation steps.
        learning_rate: peak of the schedule (see ``learning_rate``).
        weight_decay, clip_norm: AdamW's decay and the largest gradient norm (L2).
        columns: BEV columns per frame that are scored in a step.
        bfloat16: run the networks under autocast; weights and geometry stay float32.
        rarity: exponent of the class weights ``frequency ** -rarity``; 0 for none.
        ema: decay of the moving average of the weights, reached after a warm-up.
        save_every, log_every: steps between states on disk and lines in the log.
        seed: decides the columns; the data set has its own.
    """

    steps: int
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    clip_norm: float = 5.0
    columns: int = 1500
    bfloat16: bool = True
    rarity: float = 0.25
    ema: float = 0.995
    save_every: int = 200
    log_every: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.columns < 1 or self.learning_rate <= 0:
            raise ValueError(f"steps, columns and learning rate must be positive: {self}")


def fit(
    network: nn.Module,
    samples: FrameSet,
    *,
    config: TrainingConfig,
    taxonomy: Taxonomy,
    folder: Path,
    device: str = "cpu",
) -> nn.Module:
    """Train on a set, going on from the state in ``folder`` if a run was stopped there.

    Returns:
        The averaged network in eval mode.

    Raises:
        SetupError: the folder holds a run with another configuration.
        ValueError: the loss is not finite.
    """
    start, state = load_state(folder, config)
    counts = count_labels(samples, taxonomy.n_classes)
    return train(
        network,
        steps_loader(samples, start, config.steps),
        config=config,
        taxonomy=taxonomy,
        class_weights=class_weights(counts, config.rarity),
        folder=folder,
        start=start,
        state=state,
        device=device,
    )


def train(
    network: nn.Module,
    samples: Iterable[Sample],
    *,
    config: TrainingConfig,
    taxonomy: Taxonomy,
    class_weights: Tensor,
    folder: Path,
    start: int = 0,
    state: dict[str, Any] | None = None,
    device: str = "cpu",
) -> nn.Module:
    """The loop of ``fit`` over batches from anywhere.

    Args:
        network: an ``OccupancyNetwork``.
        samples: the batches of steps ``start`` to ``config.steps - 1``.
        class_weights: (K,) float.
        folder: gets ``log.jsonl``, ``state.pt`` and ``config.json``.
        start, state: where a stopped run goes on, from ``load_state``.

    Raises:
        ValueError: the loss is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=1) + "\n")
    network.to(device).train()
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimiser = AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    if state is not None:
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
    class_weights = class_weights.to(device)
    foreground = torch.zeros(256, dtype=torch.bool)
    foreground[list(taxonomy.foreground)] = True

    began, running = time.monotonic(), math.nan
    with (folder / "log.jsonl").open("a") as log:
        bar = tqdm(samples, total=config.steps, initial=start, desc="train", mininterval=2.0)
        for step, sample in enumerate(bar, start=start):
            generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
            columns = draw_columns(
                sample.semantics, sample.weight, foreground, config.columns, generator
            )
            with torch.autocast(torch.device(device).type, torch.bfloat16, config.bfloat16):
                loss = _loss(
                    cast(OccupancyNetwork, network), sample, columns, class_weights, device
                )
            if not torch.isfinite(loss):
                raise ValueError(f"step {step}: the loss is {loss.item()}")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), config.clip_norm)
            rate = learning_rate(config, step)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            _update_average(average, network, min(config.ema, (1 + step) / (10 + step)))
            value = loss.item()
            running = value if math.isnan(running) else 0.98 * running + 0.02 * value
            bar.set_postfix(loss=f"{running:.3f}", refresh=False)
            if (step + 1) % config.log_every == 0:
                record = {
                    "step": step + 1,
                    "loss": round(running, 5),
                    "lr": rate,
                    "seconds": round(time.monotonic() - began, 1),
                }
                log.write(json.dumps(record) + "\n")
                log.flush()
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                _save_state(
                    folder / "state.pt",
                    {
                        "step": step + 1,
                        "config": asdict(config),
                        "network": network.state_dict(),
                        "average": average.state_dict(),
                        "optimiser": optimiser.state_dict(),
                    },
                )
    return average


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Linear warm-up over the first tenth of the steps, then a half cosine down to zero."""
    warm = max(1, config.steps // 10)
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    progress = (step - warm) / max(1, config.steps - warm)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def load_state(folder: Path, config: TrainingConfig) -> tuple[int, dict[str, Any] | None]:
    """Step and state of a stopped run in this folder, or ``(0, None)``.

    Raises:
        SetupError: the folder holds a run with another configuration.
    """
    path = folder / "state.pt"
    if not path.exists():
        return 0, None
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["config"] != asdict(config):
        raise SetupError(f"{path}: of a run with another configuration; choose another --out")
    return int(state["step"]), state


def steps_loader(samples: FrameSet, start: int, stop: int) -> DataLoader[Sample]:
    """Batches of steps ``start`` to ``stop - 1``, prepared ahead in one other process.

    The process is forked from a clean server: zarr in a plain fork can deadlock.
    """
    return DataLoader(
        samples,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=1,
        multiprocessing_context="forkserver",
        prefetch_factor=4,
    )


def count_labels(samples: FrameSet, n_classes: int, *, at_most: int = 64) -> Tensor:
    """(K,) usable voxels per class in evenly spaced frames of the set."""
    step = max(1, len(samples.items) // at_most)
    counts = torch.zeros(256)
    for labels, frame in samples.items[::step]:
        target = labels.target(frame)
        usable = torch.from_numpy(target.semantics[target.weight > 0]).long()
        counts += torch.bincount(usable, minlength=256)
    return counts[:n_classes]


def class_weights(counts: Tensor, rarity: float) -> Tensor:
    """``frequency ** -rarity``, scaled so that the mean over all voxels is 1.

    Args:
        counts: (K,) voxels per class. A class with very few weighs as much as one with 1e-5 of
            the voxels, so that a handful of voxels never steers the training.
    """
    frequency = counts.double() / counts.sum().clamp(min=1)
    weights = frequency.clamp(min=1e-5).pow(-rarity)
    return (weights / (weights * frequency).sum()).float()


def draw_columns(
    semantics: Tensor,  # (B, X, Y, Z) uint8
    weight: Tensor,  # (B, X, Y, Z) float
    foreground: Tensor,  # (256,) bool
    count: int,
    generator: torch.Generator,
) -> Tensor:
    """Columns to score: half from those with a usable object voxel, half from all usable ones.

    Returns:
        (M,) int64, row-major over (B, X, Y); M <= count * B, each at most once.
    """
    usable = weight > 0
    any_usable = usable.any(-1)
    has_object = (usable & foreground[semantics.long()]).any(-1)
    B, X, Y, _ = semantics.shape
    drawn = []
    for b in range(B):
        objects = _pick(has_object[b], count // 2, generator)
        others = any_usable[b].flatten()
        others[objects] = False
        drawn += [objects + b * X * Y, _pick(others, count - len(objects), generator) + b * X * Y]
    return torch.cat(drawn)


def _pick(candidates: Tensor, count: int, generator: torch.Generator) -> Tensor:
    index = candidates.flatten().nonzero().squeeze(1)
    return index[torch.randperm(len(index), generator=generator)[:count]]


def _loss(
    network: OccupancyNetwork, sample: Sample, columns: Tensor, weights: Tensor, device: str
) -> Tensor:
    target = sample.semantics.flatten(0, 2)[columns].to(device)  # (M, Z)
    weight = sample.weight.flatten(0, 2)[columns].to(device)
    bev = network.bev(sample.inputs.to(device))
    logits = network.occ_head.columns(bev, columns.to(device))  # (M, Z, K)
    return voxel_cross_entropy(logits.float(), target, weight, class_weights=weights)


@torch.no_grad()
def _update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    for kept, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, 1 - decay)
        else:
            kept.copy_(new)


def _save_state(path: Path, state: dict[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
