"""How large a study is: the city, the networks, how long each is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from datasets.loading.augmentation import AirborneReturns, Augmentation, ImageAugmentation
from datasets.sources.synthetic.city import CityConfig
from models.training.distillation import DistillationConfig
from models.training.loop import Precision, TrainingConfig
from models.training.objectives import LossKind
from models.training.schedules import WarmupEMA

Modality = Literal["fusion", "lidar", "camera"]
MODALITIES: tuple[Modality, ...] = ("fusion", "lidar", "camera")


@dataclass(frozen=True, slots=True, kw_only=True)
class Schooling:
    """How a network of the study is trained: AdamW, warm-up and half a cosine, moving average.

    Attributes:
        rarity: a class weighs ``frequency ** -rarity``.
        loss: of the labels, see ``LabelLoss``.
        average: decay of the moving average of the weights.
        jitter: largest relative change of brightness, contrast and saturation.
        columns: BEV columns of a frame that are scored in a step; None: all voxels.
    """

    steps: int
    batch: int = 2
    learning_rate: float = 2e-3
    rarity: float = 0.35
    loss: LossKind = "ce"
    average: float = 0.99
    jitter: float = 0.2
    columns: int | None = None
    precision: Precision = "bfloat16"

    def training(self, *, seed: int, threads: int, loaders: int) -> TrainingConfig:
        return TrainingConfig(
            steps=self.steps,
            learning_rate=self.learning_rate,
            average=WarmupEMA(decay=self.average),
            precision=self.precision,
            seed=seed,
            threads=threads,
            save_every=max(1, min(250, self.steps // 4)),
            loaders=loaders,
        )

    def augmentation(self, airborne: AirborneReturns | None = None) -> Augmentation:
        """BEV mirrors, colors and weather; the images keep their geometry."""
        colors = ImageAugmentation(
            scale=(1.0, 1.0),
            flip=0.0,
            rotation_deg=0.0,
            brightness=self.jitter,
            contrast=self.jitter,
            saturation=self.jitter,
        )
        return Augmentation(images=colors, fewer_sweeps=0.0, airborne=airborne)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A study's size.

    Attributes:
        city: generated where ``--root`` holds no log; all its training scenes have labels, of
            which the study uses a share.
        percent: shares of labelled scenes, by default.
        seeds: how many draws and trainings of everything, by default.
        benchmark: whose labels are learnt and scored.
        student: preset of every student.
        teachers: preset of the teacher by what it reads.
        teaching, schooling: of the teachers, and of every student arm alike.
        fusing: of the fusion teacher, which then starts from the LiDAR teacher's weights; None: it
            starts from nothing, as the others.
        airborne: among the points that teachers learn from.
        held_out: share of a teacher's labelled scenes that calibrate it (at least one).
        distillation: what the distilled arms learn from the teacher.
        inherit_head: distilled students start with the teacher's head.
        replay: the teacher's BEV features are kept on disk and mirrored with the frame; otherwise
            the teacher runs along.
        min_confidence: a pseudo-label is trusted from this P(right) on; 0 trusts all that was
            observed, by its weight alone: a threshold drops most of the rare classes.
        flips: a teacher's labels are means over mirrored inputs.
        balance: classes that are trusted little are weighed up to so much, see ``PseudoLabels``.
        human_share: share of the frames drawn that have ground truth, for students that learn from
            the other scenes too; None: every scene equally often.
        visibility_split: see ``LabelingConfig``; 0.4 m voxels, as the masks of Occ3D have.
        loaders: processes that prepare a training's batches.
        memory_gib: of frames kept in each process that prepares batches.
        threads: of one part on a CPU.
    """

    name: str
    city: CityConfig
    percent: tuple[int, ...] = (10, 20)
    seeds: int = 3
    benchmark: str
    student: str
    teachers: dict[Modality, str]
    teaching: Schooling
    schooling: Schooling
    fusing: Schooling | None = None
    airborne: AirborneReturns | None = None
    held_out: float = 0.2
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    inherit_head: bool = True
    replay: bool = True
    min_confidence: float = 0.0
    flips: bool = True
    balance: float = 10.0
    human_share: float | None = None
    visibility_split: int = 1
    loaders: int = 0
    memory_gib: float = 4.0
    threads: int = 1


_COARSE_TEACHERS: dict[Modality, str] = {
    "fusion": "fusion_coarse",
    "lidar": "lidar_coarse",
    "camera": "camera_coarse",
}


def smoke() -> Profile:
    """Every part of a study at its smallest; its figures mean nothing."""
    return Profile(
        name="smoke",
        city=CityConfig(
            labeled_scenes=4,
            unlabeled_scenes=0,
            val_scenes=1,
            frames_per_scene=2,
            sweeps=4,
        ),
        percent=(50,),
        seeds=1,
        benchmark="occ3d_coarse",
        student="camera_coarse",
        teachers=_COARSE_TEACHERS,
        teaching=Schooling(steps=8, rarity=0.2),
        fusing=Schooling(steps=4, rarity=0.2),
        airborne=AirborneReturns(),
        schooling=Schooling(steps=6),
        visibility_split=2,
    )


def cpu() -> Profile:
    """Two hours on two cores: eight classes on 0.8 m voxels."""
    return Profile(
        name="cpu",
        city=CityConfig(labeled_scenes=40, unlabeled_scenes=0, val_scenes=10),
        benchmark="occ3d_coarse",
        student="camera_coarse",
        teachers=_COARSE_TEACHERS,
        teaching=Schooling(steps=800, rarity=0.2),
        fusing=Schooling(steps=400, rarity=0.2),
        airborne=AirborneReturns(),
        schooling=Schooling(steps=1500, rarity=0.6),
        visibility_split=2,
    )


def gpu() -> Profile:
    """Occ3D's own voxels and classes; at most ten minutes an arm on a large GPU."""
    return Profile(
        name="gpu",
        city=CityConfig(labeled_scenes=120, unlabeled_scenes=0, val_scenes=20),
        benchmark="occ3d_nuscenes",
        student="camera_tiny",
        teachers={"fusion": "city_tiny", "camera": "camera_tiny"},
        teaching=Schooling(steps=4000, batch=8, rarity=0.2, columns=4000),
        schooling=Schooling(steps=4000, batch=8, columns=4000),
        airborne=AirborneReturns(),
        inherit_head=False,
        replay=False,
        loaders=6,
    )


PROFILES = {make.__name__: make for make in (smoke, cpu, gpu)}
