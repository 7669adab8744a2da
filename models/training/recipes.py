"""How networks are trained, by name: the published recipes and ours for a CPU, as typed Python.

The published ones are those of EFFOcc's configurations, with what is wrong there put right: masks
are flipped with the grid, velocities change sign with it, evaluation draws no sweeps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from datasets.errors import SetupError
from datasets.geometry.grid import VoxelGrid
from datasets.loading.augmentation import Augmentation, ImageAugmentation
from datasets.loading.frame_dataset import FrameDataset
from datasets.loading.mixing import Mixing
from datasets.model_inputs import InputSpec
from datasets.taxonomy import Taxonomy
from models.ops.precision import computes_bfloat16
from models.training.loop import Precision, TrainingConfig
from models.training.losses import log_frequency_weights
from models.training.objectives import LabelLoss, LossKind, class_weights, count_labels
from models.training.schedules import (
    Average,
    ConstantEMA,
    Schedule,
    StepDecay,
    WarmCosine,
    WarmupEMA,
)

ClassWeights = Literal["none", "rarity", "log frequency"] | tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Attributes:
        name: as used on command lines.
        preset: the network it is for.
        batch: frames of a step, over all GPUs and parts together.
        learning_rate: peak, for that batch.
        epochs, steps: how long; exactly one is set.
        decay_after: epochs until the rate falls to a tenth, after the published warm-up; None:
            warm-up and half a cosine instead.
        average: moving average of the weights.
        loss: of the labels.
        class_weights: ``rarity``: frequency ** -0.25; ``log frequency``: 1 / ln frequency, counted
            in the labels; or one figure per class.
        flow: weight of the flow's loss.
        only_visible: train where the benchmark scores (``GroundTruthTargets``); otherwise also
            where only LiDAR observed the voxel.
        columns: BEV columns of a frame that are scored in a step; None: all voxels.
        unbiased: see ``LabelLoss``.
        augmentation: of the frames.
        mix: share of the frames with ground truth that get a sector of another frame, and share of
            those that get an object (``datasets.loading.mixing``).
        past_sweeps: that the network reads in training, where not as many as in use.
        sweeps_to_draw_from: past sweeps to open of each frame; those to read are drawn from them.
        precision: of the networks; float32 instead of bfloat16 on a device that emulates it.
        starts_from: what the published run is initialised with (``--init``).
        paper: where it comes from.
    """

    name: str
    preset: str
    batch: int
    learning_rate: float
    epochs: int | None = None
    steps: int | None = None
    decay_after: int | None = 24
    average: Average = field(default_factory=ConstantEMA)
    loss: LossKind = "ce"
    class_weights: ClassWeights = "none"
    flow: float = 0.0
    only_visible: bool = True
    columns: int | None = None
    unbiased: bool = False
    augmentation: Augmentation
    mix: float = 0.0
    past_sweeps: int | None = None
    sweeps_to_draw_from: int = 0
    precision: Precision = "float32"
    starts_from: str = "nothing"
    paper: str

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"recipe {self.name}: either epochs or steps")

    def inputs(self, spec: InputSpec) -> InputSpec:
        """What a network of that spec is given in training."""
        if self.past_sweeps is None:
            return spec
        return replace(spec, past_sweeps=self.past_sweeps)

    def mixing(
        self, grid: VoxelGrid, taxonomy: Taxonomy, chance: float | None = None
    ) -> Mixing | None:
        """How frames are mixed, by the recipe's chance or another. Raises ``SetupError``."""
        chance = self.mix if chance is None else chance
        if not 0 <= chance <= 1:
            raise SetupError(f"--mix {chance:g} is not a share, 0..1")
        if not chance:
            return None
        return Mixing(grid=grid, classes=taxonomy.foreground, sector=chance, objects=chance)

    def rate_for(self, batch: int) -> float:
        """The learning rate for another global batch: as the square root of the ratio.

        That keeps the noise of Adam's steps (Malladi et al., NeurIPS 2022). The published runs
        follow no rule: FlashOcc's rate is 1e-4 for batches from 8 to 128.
        """
        return self.learning_rate * math.sqrt(batch / self.batch)

    def training(
        self,
        frames: int,
        *,
        batch: int | None = None,
        steps: int | None = None,
        epochs: float | None = None,
        learning_rate: float | None = None,
        device: str = "cpu",
        **others: Any,
    ) -> TrainingConfig:
        """The configuration for a set of so many frames.

        Args:
            batch, steps, epochs, learning_rate: instead of the recipe's; steps win over epochs.
            device: that trains (``precision``).
            others: further fields of ``TrainingConfig``.
        """
        batch = batch or self.batch
        per_epoch = frames / batch
        if steps is None:
            wanted = self.epochs if epochs is None else epochs
            steps = self.steps if wanted is None else max(1, math.ceil(wanted * per_epoch))
        assert steps is not None
        schedule: Schedule = WarmCosine()
        if self.decay_after is not None:
            schedule = StepDecay(decay_at=math.ceil(self.decay_after * per_epoch))
        precision = self.precision
        if precision == "bfloat16" and not computes_bfloat16(device):
            precision = "float32"
        fields = {"precision": precision} | others
        return TrainingConfig(
            steps=steps,
            learning_rate=self.rate_for(batch) if learning_rate is None else learning_rate,
            schedule=schedule,
            average=self.average,
            **fields,
        )

    def label_loss(self, taxonomy: Taxonomy, dataset: FrameDataset, *, seed: int = 0) -> LabelLoss:
        """The loss; its class weights may be counted in the set's labels.

        Raises:
            SetupError: the recipe's weights are for other classes.
        """
        weights = None
        if isinstance(self.class_weights, tuple):
            weights = torch.tensor(self.class_weights)
            if len(weights) != taxonomy.n_classes:
                raise SetupError(
                    f"recipe {self.name} weighs {len(weights)} classes, "
                    f"{taxonomy.name} has {taxonomy.n_classes}"
                )
        elif self.class_weights != "none":
            counts = count_labels(dataset, taxonomy.n_classes)
            if self.class_weights == "rarity":
                weights = class_weights(counts, 0.25)
            else:
                weights = log_frequency_weights(counts)
        return LabelLoss(
            taxonomy=taxonomy,
            kind=self.loss,
            class_weights=weights,
            columns=self.columns,
            unbiased=self.unbiased,
            flow=self.flow,
            seed=seed,
        )


_PUBLISHED = Augmentation(images=ImageAugmentation(), random_sweeps=True, fewer_sweeps=0.0)
_CITY = Augmentation(fewer_sweeps=0.5)
_WAYMO_WEIGHTS = (
    *(21.99673, 7.50447, 10.59763, 12.18108, 15.14394, 13.03552, 9.86123, 13.64432),
    *(15.12124, 21.99673, 6.20167, 5.74205, 9.76871, 3.46074, 4.15227, 1.0),
)
"""Of Occ3D-Waymo's classes in the published configuration."""
_OPENOCCUPANCY_WEIGHTS = (
    *(0.03516, 0.05857, 0.07012, 0.05821, 0.05237, 0.06030, 0.06856, 0.05850, 0.06578),
    *(0.05758, 0.05514, 0.04643, 0.05635, 0.04929, 0.04858, 0.04741, 0.04702),
)
"""1 / ln(frequency) of the published frequencies."""


def _fusion(name: str, preset: str, **changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "batch": 64,
        "learning_rate": 4e-4,
        "epochs": 48,
        "augmentation": _PUBLISHED,
        "sweeps_to_draw_from": 10,
        "starts_from": "an ImageNet backbone",
    }
    return Recipe(name=name, preset=preset, **(fields | changes))


def _camera(name: str, preset: str, **changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "batch": 32,
        "learning_rate": 1e-4,
        "epochs": 24,
        "augmentation": _PUBLISHED,
        "starts_from": "an ImageNet backbone",
    }
    return Recipe(name=name, preset=preset, **(fields | changes))


def _recipes() -> tuple[Recipe, ...]:
    r18, r50, wide = "fusion_r18_occ3d", "fusion_r50_occ3d", "flashocc_r50_distill"
    detector = "the BEVDet-R50-CBGS detector"
    return (
        _fusion("fusion_r18", r18, paper="EFFOcc-T, 20 to 100 % of the labels"),
        _fusion("fusion_r18_10", r18, learning_rate=1e-4, paper="EFFOcc-T, 10 % of the labels"),
        _fusion(
            "fusion_r18_5", r18, learning_rate=1e-4, epochs=24, paper="EFFOcc-T, 5 % of the labels"
        ),
        _fusion("fusion_r50", r50, paper="EFFOcc, R50"),
        _fusion(
            "fusion_swinb",
            "fusion_swinb_occ3d",
            batch=32,
            starts_from="Swin-B, ImageNet-22k",
            paper="EFFOcc-Base",
        ),
        _camera("flashocc", "flashocc_r50", paper="FlashOcc-R50 as EFFOcc's baseline"),
        _camera(
            "flashocc_pretrained",
            "flashocc_r50",
            batch=8,
            starts_from=detector,
            paper="FlashOcc-R50, as published",
        ),
        _camera(
            "flashocc_large_batch",
            "flashocc_r50",
            batch=128,
            paper="the baseline with 35, 280, 420 and 560 scenes (70 and 140: flashocc)",
        ),
        _camera(
            "distill_few",
            wide,
            batch=64,
            learning_rate=2e-4,
            paper="distilled from 5, 10, 20 % of the labels",
        ),
        _camera("distill", wide, paper="distilled from 40 to 100 % of the labels"),
        _camera(
            "distill_pretrained",
            wide,
            batch=64,
            learning_rate=4e-4,
            epochs=48,
            starts_from=detector,
            paper="distilled from all labels, the published 34.30",
        ),
        _fusion(
            "openoccupancy_r18",
            "fusion_r18_openoccupancy",
            batch=16,
            learning_rate=1e-4,
            epochs=24,
            loss="four",
            class_weights=_OPENOCCUPANCY_WEIGHTS,
            past_sweeps=9,
            starts_from="the DAL-tiny detector",
            paper="EFFOcc-T on OpenOccupancy: the four losses",
        ),
        _fusion(
            "flow_r18",
            "fusion_r18_flow",
            batch=16,
            learning_rate=1e-4,
            epochs=24,
            flow=0.25,
            starts_from="the DAL-tiny detector",
            paper="EFFOcc-T with flow on OpenOcc v2",
        ),
        _fusion(
            "waymo_d5",
            "fusion_r18_waymo",
            batch=16,
            learning_rate=1e-4,
            epochs=8,
            loss="ohem",
            class_weights=_WAYMO_WEIGHTS,
            sweeps_to_draw_from=0,
            paper="EFFOcc-T on every fifth frame of Occ3D-Waymo: OHEM",
        ),
        _fusion(
            "waymo_lidar_d1",
            "lidar_waymo",
            batch=16,
            learning_rate=1e-4,
            epochs=24,
            sweeps_to_draw_from=0,
            starts_from="nothing",
            paper="EFFOcc-L on Occ3D-Waymo: plain cross-entropy",
        ),
        Recipe(
            name="city_teacher",
            preset="city_tiny",
            batch=1,
            learning_rate=2e-3,
            steps=1500,
            decay_after=None,
            average=WarmupEMA(),
            class_weights="rarity",
            only_visible=False,
            columns=1500,
            unbiased=True,
            augmentation=_CITY,
            precision="bfloat16",
            paper="the built-in city on a CPU; not published",
        ),
        Recipe(
            name="city_student",
            preset="camera_tiny",
            batch=1,
            learning_rate=2e-3,
            steps=400,
            decay_after=None,
            average=WarmupEMA(),
            class_weights="rarity",
            columns=1500,
            unbiased=True,
            augmentation=_CITY,
            precision="bfloat16",
            paper="the built-in city on a CPU; not published",
        ),
    )


RECIPES = {recipe.name: recipe for recipe in _recipes()}


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        SetupError: there is none; the message lists those there are.
    """
    if name not in RECIPES:
        raise SetupError(f"no recipe {name!r}; there are: {', '.join(RECIPES)}")
    return RECIPES[name]
