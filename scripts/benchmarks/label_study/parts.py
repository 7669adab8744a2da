"""The parts of a study, what each needs, and the hash of all that determines it.

A teacher learns from some labelled scenes; a store holds its labels of the other training scenes,
features its BEV maps of all of them; students learn from labels, store and features.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from label_study.profiles import Modality, Profile

from autolabel.labeling.store_header import LABELING_VERSION
from autolabel.refinement.temporal_fusion import Refinement
from datasets.annotations import AnnotatedSource
from datasets.benchmarks.catalogue import benchmark
from datasets.errors import SetupError
from datasets.files.json_files import canonical_text
from datasets.sources.opening import open_source
from datasets.sources.synthetic.city import MARKER
from models.presets import preset

STUDY_VERSION = 2
"""Raised whenever the same settings would give other results."""

_REFINEMENT = {"refinement": Refinement().to_json()}

Kind = Literal["teacher", "store", "features", "student"]
Arm = Literal[
    "full", "labels", "pseudo", "distilled", "both", "true-classes", "true-mask", "raw", "refined"
]
ARMS: tuple[Arm, ...] = ("full", "labels", "pseudo", "distilled", "both")
"""Students: all labels; the labelled share alone; that and the store; that and distillation from
the teacher; that and both."""
ORACLES: tuple[Arm, ...] = ("true-classes", "true-mask")
"""As ``pseudo``, but for the store's classes, or its mask and weights, which are the truth's: what
limits the pseudo-labels?"""
WORTH: tuple[Arm, ...] = ("raw", "refined")
"""As ``pseudo``, but for taking every voxel for what the teacher says, all alike; and for labels
put together over the drive: what are mask, confidence and refinement worth?"""
FROM_STORE: tuple[Arm, ...] = ("pseudo", "both", *ORACLES, *WORTH)
FROM_FEATURES: tuple[Arm, ...] = ("distilled", "both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Where the study's frames and their truth are."""

    kind: str
    root: Path

    def open(self, *, past_sweeps: int, share: float | None = None) -> AnnotatedSource:
        return open_source(self.kind, self.root, past_sweeps=past_sweeps, labelled=share)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One thing to make.

    Attributes:
        what: modality of a teacher, arm of a student, ``refined`` of a store put together over
            the drive; empty otherwise.
        percent: share of labelled scenes.
        labelled: these scenes.
        settings: JSON values that determine the result beside the rest.
        cost: expected work, in steps of a student.
    """

    kind: Kind
    what: str
    percent: int
    seed: int
    labelled: tuple[str, ...]
    settings: dict[str, Any]
    needs: tuple[Part, ...]
    cost: float

    @property
    def name(self) -> str:
        words = (self.kind, self.what, str(self.percent), f"seed{self.seed}")
        return "-".join(word for word in words if word)

    @cached_property
    def key(self) -> str:
        """Hash of all that determines the result, what it needs included."""
        identity = [
            self.kind,
            self.what,
            self.seed,
            self.labelled,
            self.settings,
            [part.key for part in self.needs],
        ]
        return hashlib.sha256(canonical_text(identity).encode()).hexdigest()

    def folder(self, out: Path) -> Path:
        return out / "parts" / f"{self.name}-{self.key[:10]}"

    def with_needs(self) -> Iterator[Part]:
        for part in self.needs:
            yield from part.with_needs()
        yield self


def plan(
    profile: Profile,
    log: Log,
    *,
    percent: Sequence[int],
    seeds: int,
    teachers: Sequence[Modality],
    device: str,
) -> list[Part]:
    """Every part of the study in a good order; the first of the teachers makes the labels.

    Raises:
        SetupError: a share leaves a teacher no scene to learn from or none to be calibrated on,
            or the profile has no such teacher.
    """
    if missing := set(teachers) - set(profile.teachers):
        raise SetupError(f"profile {profile.name} has no teacher {', '.join(sorted(missing))}")
    source = log.open(past_sweeps=1)
    scenes = source.scene_ids("train")
    common = {
        "study": STUDY_VERSION,
        "log": _fingerprint(log, source),
        "benchmark": profile.benchmark,
        "device": device,
    }
    parts: list[Part] = []
    for seed in range(seeds):
        parts.append(_student(profile, common, "full", 100, seed, scenes, ()))
        for share in sorted(percent):
            labelled = draw(log, share, seed)
            if len(labelled) < 2 or len(labelled) >= len(scenes):
                raise SetupError(
                    f"{share} % of {len(scenes)} training scenes are {len(labelled)}: the "
                    "teacher needs two, and one must be left to label"
                )
            of_teachers = [_teacher(profile, common, m, share, seed, labelled) for m in teachers]
            n_unlabeled = len(scenes) - len(labelled)
            frames = profile.city.frames_per_scene
            store = _from_teacher(
                profile, common, "store", of_teachers[0], 2.0 * n_unlabeled * frames
            )
            refined = replace(store, what="refined", settings=store.settings | _REFINEMENT)
            features = _from_teacher(
                profile, common, "features", of_teachers[0], 0.5 * len(scenes) * frames
            )
            parts += of_teachers
            for arm in (*ARMS[1:], *ORACLES, *WORTH):
                needs: tuple[Part, ...] = (store,) if arm in FROM_STORE else ()
                if arm == "refined":
                    needs = (refined,)
                if arm in FROM_FEATURES:
                    needs += (features if profile.replay else of_teachers[0],)
                parts.append(_student(profile, common, arm, share, seed, labelled, needs))
            parts += [store, *([features] if profile.replay else [])]
    return in_order(parts)


def in_order(parts: Sequence[Part]) -> list[Part]:
    """Each once, after what it needs; a seed after the other, so that an early end shows most."""
    rank = {"teacher": 0, "store": 1, "features": 2, "student": 3}
    ordered = sorted(parts, key=lambda p: (p.seed, rank[p.kind], p.percent))
    return list({part.key: part for wanted in ordered for part in wanted.with_needs()}.values())


def draw(log: Log, percent: int, seed: int) -> tuple[str, ...]:
    """The labelled scenes: those of the published rule for seed 0; for another ``s`` a sample of
    the sorted scene names by ``random.Random(42 + s)``."""
    source = log.open(past_sweeps=1, share=percent / 100)
    labelled = source.scene_ids("labeled")
    if seed == 0:
        return labelled
    names = sorted(source.scene_ids("train"))
    return tuple(sorted(random.Random(42 + seed).sample(names, len(labelled))))


def held_out(part: Part, profile: Profile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Scenes a teacher learns from, and those that calibrate it."""
    n = max(1, round(profile.held_out * len(part.labelled)))
    return part.labelled[:-n], part.labelled[-n:]


def _fingerprint(log: Log, source: AnnotatedSource) -> str:
    """Of the study's scenes; in a city also of what made it."""
    digest = hashlib.sha256()
    marker = log.root / MARKER
    digest.update(marker.read_bytes() if marker.is_file() else b"")
    for split in ("train", "val"):
        for scene in source.scene_ids(split):
            digest.update(f"{split} {scene} {source.fingerprint(scene)}".encode())
    return digest.hexdigest()


def _teacher(
    profile: Profile,
    common: dict[str, Any],
    modality: Modality,
    percent: int,
    seed: int,
    labelled: tuple[str, ...],
) -> Part:
    schooling, needs = profile.teaching, tuple[Part, ...]()
    if modality == "fusion" and profile.fusing is not None:
        schooling = profile.fusing
        needs = (_teacher(profile, common, "lidar", percent, seed, labelled),)
    settings = {
        "preset": repr(preset(profile.teachers[modality])),
        "schooling": asdict(schooling),
        "held_out": profile.held_out,
        "flips": profile.flips,
    }
    if profile.airborne is not None and modality != "camera":  # which reads no points
        settings["airborne"] = asdict(profile.airborne)
    return Part(
        kind="teacher",
        what=modality,
        percent=percent,
        seed=seed,
        labelled=labelled,
        settings=common | settings,
        needs=needs,
        cost=1.5 * schooling.steps,
    )


def _from_teacher(
    profile: Profile, common: dict[str, Any], kind: Kind, teacher: Part, cost: float
) -> Part:
    settings = dict(common)
    if kind == "store":
        settings["labeling"] = LABELING_VERSION
        settings["min_confidence"] = profile.min_confidence
        settings["visibility_split"] = profile.visibility_split
        settings["flips"] = profile.flips
        settings["free_passes"] = "fitted"
    return Part(
        kind=kind,
        what="",
        percent=teacher.percent,
        seed=teacher.seed,
        labelled=teacher.labelled,
        settings=settings,
        needs=(teacher,),
        cost=cost,
    )


def _student(
    profile: Profile,
    common: dict[str, Any],
    arm: Arm,
    percent: int,
    seed: int,
    labelled: tuple[str, ...],
    needs: tuple[Part, ...],
) -> Part:
    settings: dict[str, Any] = {
        "preset": repr(preset(profile.student)),
        "schooling": asdict(profile.schooling),
    }
    if arm in FROM_STORE:
        settings["balance"] = profile.balance
    if needs and profile.human_share is not None:
        settings["human_share"] = profile.human_share
    if arm in FROM_FEATURES:
        settings["distillation"] = asdict(profile.distillation)
        settings["inherit_head"] = profile.inherit_head
    return Part(
        kind="student",
        what=arm,
        percent=percent,
        seed=seed,
        labelled=labelled,
        settings=common | settings,
        needs=needs,
        cost=1.1 * profile.schooling.steps if needs else profile.schooling.steps,
    )


def require_benchmark(profile: Profile) -> None:
    """Raises ``SetupError`` where a preset of the profile is not made for its benchmark."""
    scored = benchmark(profile.benchmark)
    for name in (profile.student, *profile.teachers.values()):
        network = preset(name)
        scored.require(f"preset {name}", network.grid, network.taxonomy, network.inputs.frame)
