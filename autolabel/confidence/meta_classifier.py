"""How likely is a label right, given more than its softmax? A small network tells.

The softmax of a voxel knows nothing of the voxels around it, of the rays that ended or passed
there, or of whether the frames of a drive agree. A meta classifier (Rottmann et al., IJCNN 2020,
arXiv 1811.00648) sees these and says P(label is right), learnt on labelled scenes. It takes the
softmax's place as the raw confidence that is calibrated (``confidence``); no label is changed.

Legend: X Y Z voxels, V voxels looked at, K classes, F features, H hidden units.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autolabel.refinement.fit import one_thread
from autolabel.refinement.temporal_fusion import PASS_EDGES, Pooled
from datasets.geometry.compiled import compiled
from datasets.geometry.grid import VoxelGrid

HIDDEN = 32
EPOCHS = 8
BATCH = 1024
RATE = 3e-3
SURE = 9.2
"""Log odds are cut off here: 1e-4 from certainty."""
NUMBERS = (
    *("log odds", "log odds of the frame", "log odds of near frames", "log odds of far frames"),
    *("hits", "passes", "hits of others", "passes of others"),
    *("same class around", "free around", "mean log odds around", "least log odds around"),
    *("distance", "height"),
)
"""What a classifier sees beside the predicted class; around is in the 26 voxels next to it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Others:
    """What frames say, one part at a time, of the class that a voxel is taken for.

    Attributes:
        log_odds: (3, X, Y, Z) float16, of the frame itself, of the near and of the far ones.
        evidence_bin: (X, Y, Z) uint8, of the other frames' LiDAR rays (see ``temporal``).
    """

    log_odds: NDArray[np.float16]
    evidence_bin: NDArray[np.uint8]

    @classmethod
    def of(cls, pooled: Pooled, semantics: NDArray[np.uint8]) -> Others:
        """From what was pooled for all the voxels of a frame."""
        chosen = semantics.reshape(-1, 1).astype(np.intp)
        log_odds = np.empty((3, chosen.size), np.float16)
        for out, part in zip(log_odds, (pooled.own, pooled.near, pooled.far), strict=True):
            p = np.exp(np.take_along_axis(part, chosen, axis=1)[:, 0])
            out[:] = _log_odds(p)
        return cls(
            log_odds=log_odds.reshape(3, *semantics.shape),
            evidence_bin=pooled.other_bin.astype(np.uint8).reshape(semantics.shape),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MetaClassifier:
    """For the labels of one teacher, made in one way.

    Attributes:
        n_classes: K; a feature beside the ``NUMBERS`` says for each whether it is predicted.
        mean, scale: (F,) float32 of the features.
        layers: weights (F, H), (H, H), (H, 1) and offsets of each, float32.
        voxels: that it was learnt from.

    Raises:
        ValueError: shapes do not fit, a value is not finite, or a scale is not positive.
    """

    n_classes: int
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    voxels: int = 0

    def __post_init__(self) -> None:
        width = len(NUMBERS) + self.n_classes
        values = [self.mean, self.scale]
        good = self.mean.shape == self.scale.shape == (width,)
        for weight, offset in self.layers:
            good &= weight.ndim == 2 and weight.shape[0] == width
            width = weight.shape[-1]
            good &= offset.shape == (width,)
            values += [weight, offset]
        if not good or width != 1:
            shapes = [v.shape for v in values]
            raise ValueError(f"layers of a meta classifier do not fit each other: {shapes}")
        if not all(np.isfinite(v).all() for v in values) or not (self.scale > 0).all():
            raise ValueError("the weights of a meta classifier must be finite, scales positive")

    def p_right(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(V,) P(label is right) of voxels with features (V, F)."""
        if not len(features):
            return np.empty(0, np.float32)
        with torch.inference_mode():
            x = torch.from_numpy((features - self.mean) / self.scale)
            for i, (weight, offset) in enumerate(self.layers):
                x = x.relu_() if i else x
                x = torch.addmm(torch.from_numpy(offset), x, torch.from_numpy(weight))
            return np.asarray(x[:, 0].sigmoid_().numpy())

    def to_json(self) -> dict[str, Any]:
        return {
            "numbers": list(NUMBERS),
            "classes": self.n_classes,
            "mean": _rounded(self.mean),
            "scale": _rounded(self.scale),
            "layers": [[_rounded(weight), _rounded(offset)] for weight, offset in self.layers],
            "voxels": self.voxels,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> MetaClassifier:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        if tuple(data["numbers"]) != NUMBERS:
            raise ValueError(f"a meta classifier that sees other features: {data['numbers']}")
        return cls(
            n_classes=int(data["classes"]),
            mean=np.asarray(data["mean"], np.float32),
            scale=np.asarray(data["scale"], np.float32),
            layers=tuple(
                (np.asarray(weight, np.float32), np.asarray(offset, np.float32))
                for weight, offset in data["layers"]
            ),
            voxels=int(data["voxels"]),
        )


class TooFewVoxelsError(ValueError):
    """There is too little to learn from."""


class MetaFit:
    """Learns a meta classifier from labelled voxels. Streaming over frames.

    Args:
        per_frame: voxels predicted occupied drawn from each, at most; of those predicted free a
            third as many. Chances are learnt per predicted class, so this shifts none.
    """

    def __init__(
        self, n_classes: int, free_id: int, *, per_frame: int = 4500, seed: int = 0
    ) -> None:
        self.n_classes, self.free_id, self.per_frame = n_classes, free_id, per_frame
        self.rng = np.random.default_rng(seed)
        self.features: list[NDArray[np.float32]] = []
        self.right: list[NDArray[np.bool_]] = []

    def draw(
        self,
        semantics: NDArray[np.uint8],  # (X, Y, Z)
        known: NDArray[np.bool_],  # (X, Y, Z)
    ) -> NDArray[np.intp]:
        """(V,) flat indices of voxels to learn from."""
        free = semantics == self.free_id
        drawn = []
        for voxels, limit in ((known & ~free, self.per_frame), (known & free, self.per_frame // 3)):
            candidates = np.flatnonzero(voxels)
            drawn.append(self.rng.choice(candidates, min(len(candidates), limit), replace=False))
        return np.sort(np.concatenate(drawn))

    def update(self, features: NDArray[np.float32], right: NDArray[np.bool_]) -> None:
        """Add the voxels of a frame: (V, F), (V,)."""
        self.features.append(features)
        self.right.append(right)

    def fit(self, frames: Sequence[int] | None = None) -> MetaClassifier:
        """Least log loss, by AdamW with one cycle of the learning rate (Smith and Topin, 2019).

        Args:
            frames: positions, in the order of ``update``, of those to learn from; None: all.

        Raises:
            TooFewVoxelsError: there are fewer than make a batch.
        """
        used = range(len(self.right)) if frames is None else frames
        right = np.concatenate([self.right[i] for i in used]) if len(used) else np.empty(0, bool)
        if len(right) < BATCH:
            raise TooFewVoxelsError(f"{len(right)} voxels are known, {BATCH} are needed")
        features = np.concatenate([self.features[i] for i in used])
        mean = features.mean(0, dtype=np.float64).astype(np.float32)
        scale = np.maximum(features.std(0, dtype=np.float64), 1e-3).astype(np.float32)
        x = torch.from_numpy((features - mean) / scale)
        with one_thread():
            layers = _train(x, torch.from_numpy(right).float())
        return MetaClassifier(
            n_classes=self.n_classes, mean=mean, scale=scale, layers=layers, voxels=len(right)
        )


def features_of(
    semantics: NDArray[np.uint8],  # (X, Y, Z)
    raw: NDArray[np.float32],  # (X, Y, Z)
    hits: NDArray[np.uint8],  # (X, Y, Z)
    passes: NDArray[np.uint8],  # (X, Y, Z)
    others: Others | None,
    voxels: NDArray[np.intp],  # (V,) flat indices
    grid: VoxelGrid,
    *,
    n_classes: int,
    free_id: int,
) -> NDArray[np.float32]:
    """(V, F) what a classifier sees of labels with softmax value ``raw``. ``others`` is None for
    frames labelled on their own: the frame is then all there is."""
    out = np.zeros((len(voxels), len(NUMBERS) + n_classes), np.float32)
    odds = _log_odds(raw)
    distance, height = _places(grid)
    flat = odds.ravel()[voxels]
    out[:, 0] = flat
    out[:, 4] = np.log1p(hits.ravel()[voxels], dtype=np.float32)
    out[:, 5] = np.log1p(passes.ravel()[voxels], dtype=np.float32)
    if others is None:
        out[:, 1:4] = flat[:, None]
    else:
        out[:, 1:4] = others.log_odds.reshape(3, -1)[:, voxels].T
        bins = others.evidence_bin.ravel()[voxels]
        out[:, 6], out[:, 7] = np.divmod(bins, len(PASS_EDGES) + 1)
    _around(semantics, odds, voxels, free_id, out[:, 8:12])
    out[:, 12], out[:, 13] = (
        distance.ravel()[voxels // grid.shape[2]],
        height[voxels % grid.shape[2]],
    )
    out[np.arange(len(voxels)), len(NUMBERS) + semantics.ravel()[voxels]] = 1
    return out


def _train(x: Tensor, right: Tensor) -> tuple[tuple[Any, Any], ...]:
    """Weights and offsets of the layers."""
    draws = torch.Generator().manual_seed(0)
    widths = (x.shape[1], HIDDEN, HIDDEN, 1)
    parameters = []
    for n_in, n_out in itertools.pairwise(widths):
        bound = n_in**-0.5
        weight = (2 * torch.rand(n_in, n_out, generator=draws) - 1) * bound
        parameters += [nn.Parameter(weight), nn.Parameter(torch.zeros(n_out))]
    steps = EPOCHS * (len(x) // BATCH)
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(x), generator=draws)
        for i in range(0, len(x) - BATCH + 1, BATCH):
            batch = order[i : i + BATCH]
            y = x[batch]
            for k in range(0, len(parameters), 2):
                y = y.relu() if k else y
                y = torch.addmm(parameters[k + 1], y, parameters[k])
            loss = nn.functional.binary_cross_entropy_with_logits(y[:, 0], right[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    values = [p.detach().numpy() for p in parameters]
    return tuple(zip(values[::2], values[1::2], strict=True))


def _log_odds(p: NDArray[np.float32]) -> NDArray[np.float32]:
    tiny = np.float32(np.exp(-SURE))
    p = p.clip(tiny, 1 - tiny)
    return np.asarray(np.log(p / (1 - p)), np.float32)


@functools.lru_cache(maxsize=4)
def _places(grid: VoxelGrid) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distance from the vehicle, (X, Y), in tens of metres; height (Z,) in metres."""
    X, Y, Z = grid.shape
    columns = np.stack(np.meshgrid(np.arange(X), np.arange(Y), [0], indexing="ij"), axis=-1)
    centers = grid.centers(columns)[..., 0, :2]
    levels = grid.centers(np.stack([np.zeros(Z, int), np.zeros(Z, int), np.arange(Z)], axis=-1))
    distance = np.linalg.norm(centers, axis=-1) / 10
    return distance.astype(np.float32), levels[:, 2].astype(np.float32)


@compiled
def _around(semantics: Any, odds: Any, voxels: Any, free_id: int, out: Any) -> None:
    """Share of the same class and of free, mean and least log odds of the voxels next to it."""
    X, Y, Z = semantics.shape
    for v in range(len(voxels)):
        z = voxels[v] % Z
        y = voxels[v] // Z % Y
        x = voxels[v] // (Z * Y)
        chosen = semantics[x, y, z]
        n, n_same, free = 0, 0, 0
        total, lowest = np.float32(0), np.float32(1e9)
        for i in range(max(0, x - 1), min(X, x + 2)):
            for j in range(max(0, y - 1), min(Y, y + 2)):
                for k in range(max(0, z - 1), min(Z, z + 2)):
                    if i == x and j == y and k == z:
                        continue
                    n += 1
                    neighbour = semantics[i, j, k]
                    n_same += neighbour == chosen
                    free += neighbour == free_id
                    total += odds[i, j, k]
                    lowest = min(lowest, odds[i, j, k])
        if n:
            out[v, 0] = n_same / n
            out[v, 1] = free / n
            out[v, 2] = total / n
            out[v, 3] = lowest


def _rounded(values: NDArray[np.float32]) -> list[Any]:
    """So that a file holds just what is used: float32 written with 9 digits comes back the same."""
    return [_rounded(v) for v in values] if values.ndim > 1 else [float(f"{v:.9g}") for v in values]
