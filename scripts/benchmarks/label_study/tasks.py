"""How each part of a study is made: the functions under the project's own commands, in one process.

A part's folder ends with ``result.json``, written in one step; whatever a kill leaves before that
is continued.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from label_study.altered import TrueClasses, TrueMask, Unmasked
from label_study.parts import FROM_FEATURES, FROM_STORE, Log, Part, held_out
from label_study.profiles import Modality, Profile, Schooling
from label_study.quality import StoreQuality
from label_study.replay import ReplayedPredictor, keep_features
from torch import nn
from tqdm import tqdm

from autolabel.calibration.evaluation import score
from autolabel.calibration.fit import calibrate
from autolabel.confidence.calibration import Calibration
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import write_labels
from autolabel.labeling.store_header import store_header
from autolabel.refinement.temporal_fusion import Refinement
from datasets.annotations import AnnotatedSource
from datasets.benchmarks.catalogue import benchmark
from datasets.errors import SetupError
from datasets.files.json_files import json_text, write_json
from datasets.frames import SceneSource
from datasets.labels.log_identity import labeled_scene
from datasets.labels.store import LabelStore
from datasets.loading.frame_dataset import (
    FrameDataset,
    GroundTruthTargets,
    PseudoLabels,
    TargetSource,
    Unlabelled,
)
from models.checkpoints.checkpoint import (
    CALIBRATION_KEY,
    LoadedModel,
    initialise,
    load_checkpoint,
    save_checkpoint,
)
from models.inference.predictor import OccupancyPredictor, channels_last
from models.presets import OccupancyNet, Preset, build, preset
from models.training.distillation import Distillation, DistillationObjective, used_voxels
from models.training.frozen_teacher import FrozenTeacher, TeacherSource, inherit_head, joint_inputs
from models.training.loop import fit
from models.training.objectives import LabelLoss, Objective, class_weights, count_labels

WEIGHTS = "weights.safetensors"
STORE = "labels.zarr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What every part is made with.

    Attributes:
        out: the study's folder.
        known: results of parts that were made elsewhere, by their keys.
    """

    profile: Profile
    log: Log
    out: Path
    device: str
    known: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    def result(self, part: Part) -> dict[str, Any] | None:
        """What the part gave, if it is there or known."""
        return self._made(part) or self.known.get(part.key)

    def is_made(self, part: Part) -> bool:
        """Whether the part's files are there, for others to be made from."""
        return self._made(part) is not None

    def _made(self, part: Part) -> dict[str, Any] | None:
        try:
            result = json.loads((part.folder(self.out) / "result.json").read_text())
        except (OSError, ValueError):
            return None
        return result if result.get("key") == part.key else None

    def make(self, part: Part) -> None:
        """Make a part whose needs are there."""
        began = time.monotonic()
        folder = part.folder(self.out)
        folder.mkdir(parents=True, exist_ok=True)
        if self.device == "cpu":
            torch.set_num_threads(self.profile.threads)
        result = {
            "teacher": self._teacher,
            "store": self._store,
            "features": self._features,
            "student": self._student,
        }[part.kind](part, folder)
        seconds = time.monotonic() - began + result.pop("seconds_before", 0.0)
        document = {
            "key": part.key,
            "name": part.name,
            "kind": part.kind,
            "what": part.what,
            "percent": part.percent,
            "seed": part.seed,
            "labelled": list(part.labelled),
            "seconds": round(seconds, 1),
            "ended": round(time.time(), 1),
            **result,
        }
        write_json(folder / "result.json", document)

    def _truth(self, source: AnnotatedSource, scenes: Sequence[str]) -> GroundTruthTargets:
        """Where the benchmark scores, for teachers too, as published: where LiDAR alone sees, half
        of the voxels are occupied, and a teacher that learns there fills too much elsewhere."""
        scored = benchmark(self.profile.benchmark)
        root = self.log.root / scored.folder
        return GroundTruthTargets(scored, root, source, scenes)

    def _scores(
        self, network: OccupancyNet, chosen: Preset, source: AnnotatedSource
    ) -> dict[str, object]:
        """On the validation scenes."""
        scenes = source.scene_ids("val")
        teacher = OccupancyPredictor(network, chosen)
        table = score(teacher, source, self._truth(source, scenes), scenes)
        return table.to_json()

    def _train(
        self,
        part: Part,
        folder: Path,
        chosen: Preset,
        schooling: Schooling,
        source: AnnotatedSource,
        labels: Sequence[TargetSource],
        *,
        teacher: _Master | None = None,
        start: Path | None = None,
    ) -> tuple[OccupancyNet, dict[str, Any]]:
        """The averaged network, and how the training went; ``start`` are weights to go on from."""
        live = teacher.preset.inputs if teacher and teacher.features is None else None
        samples = FrameDataset(
            source,
            labels,
            joint_inputs(chosen.inputs, live) if live else chosen.inputs,
            batch=schooling.batch,
            augment=schooling.augmentation(
                self.profile.airborne if part.kind == "teacher" else None
            ),
            seed=part.seed,
            memory_gib=self.profile.memory_gib,
            human_share=self.profile.human_share if len(labels) > 1 else None,
        )
        counts = count_labels(samples, chosen.taxonomy.n_classes)
        loss = LabelLoss(
            taxonomy=chosen.taxonomy,
            kind=schooling.loss,
            class_weights=class_weights(counts, schooling.rarity),
            columns=schooling.columns,
            seed=part.seed,
        )
        torch.manual_seed(part.seed)
        network = channels_last(build(chosen.name))
        if start is not None:
            initialise(network, start)
        objective: Objective = loss
        if teacher is not None:
            objective = self._distilled(loss, network, teacher)
        began = time.monotonic()
        trained = fit(
            network,
            samples,
            objective=objective,
            config=schooling.training(
                seed=part.seed,
                threads=self.profile.threads if self.device == "cpu" else 0,
                loaders=self.profile.loaders,
            ),
            folder=folder,
            device=self.device,
            job={"part": part.key},
        )
        elapsed = time.monotonic() - began
        before = max(0.0, trained.report.seconds - elapsed)
        training = {"training": trained.report.to_json(), "seconds_before": before}
        return cast(OccupancyNet, trained.network), training

    def _distilled(self, loss: LabelLoss, network: OccupancyNet, teacher: _Master) -> Objective:
        """The label loss with the teacher's terms; the network is given the teacher's head."""
        if self.profile.inherit_head:
            inherit_head(network, teacher.network)
        outputs: TeacherSource = FrozenTeacher(teacher.network)
        if teacher.features is not None:
            outputs = ReplayedPredictor(teacher.features, teacher.network.occ_head)
        student_channels, teacher_channels = _bev_channels(network), _bev_channels(teacher.network)
        distillation = Distillation(
            self.profile.distillation,
            taxonomy=teacher.preset.taxonomy,
            teacher=outputs,
            adapter=None
            if student_channels == teacher_channels
            else nn.Conv2d(student_channels, teacher_channels, 1),
        )
        return DistillationObjective(loss, distillation, within=used_voxels)

    def _teacher(self, part: Part, folder: Path) -> dict[str, Any]:
        chosen = preset(self.profile.teachers[cast(Modality, part.what)])
        source = self.log.open(past_sweeps=chosen.inputs.past_sweeps)
        used, calibrating = held_out(part, self.profile)
        schooling, start = self.profile.teaching, None
        if part.needs:
            assert self.profile.fusing is not None
            schooling, start = self.profile.fusing, part.needs[0].folder(self.out) / WEIGHTS
        network, training = self._train(
            part, folder, chosen, schooling, source, [self._truth(source, used)], start=start
        )
        labeller = OccupancyPredictor(network, chosen, tta_flips=self.profile.flips)
        calibrated = calibrate(
            labeller,
            source,
            self._truth(source, calibrating),
            calibrating,
            LabelingConfig(),
            kind=self.log.kind,
        )
        metadata = {CALIBRATION_KEY: json_text(calibrated.calibration.to_json())}
        save_checkpoint(folder / WEIGHTS, network, chosen.name, metadata)
        (folder / "state.pt").unlink(missing_ok=True)
        return training | {
            "held_out": list(calibrating),
            "scores": self._scores(network, chosen, source),
        }

    def _load_teacher(self, part: Part) -> LoadedModel:
        return load_checkpoint(part.folder(self.out) / WEIGHTS, device=self.device)

    def label_with(
        self,
        teacher: Part,
        place: Path,
        scenes: Callable[[SceneSource], Sequence[str]],
        *,
        flips: bool,
        refinement: Refinement | None = None,
    ) -> tuple[LabelStore, Calibration]:
        """Calibrate a teacher on the scenes held out of it and label others into a store, which is
        continued if it is there.

        Args:
            refinement: of the labels over the drive, learnt on the scenes held out as well.
            scenes: the ids to label, of the log.
        """
        model = self._load_teacher(teacher)
        source = self.log.open(past_sweeps=model.preset.inputs.past_sweeps)
        config = LabelingConfig(
            min_confidence=self.profile.min_confidence,
            visibility_split=self.profile.visibility_split,
            flips=flips,
            refinement=refinement,
        )
        labeller = OccupancyPredictor(model.module, model.preset, tta_flips=flips)
        _, calibrating = held_out(teacher, self.profile)
        truth = self._truth(source, calibrating)
        calibration = calibrate(
            labeller, source, truth, calibrating, config, kind=self.log.kind
        ).calibration
        header = store_header(
            model,
            calibration,
            config,
            source=self.log.kind,
            licence=source.licence,
            device=self.device,
        )
        store = LabelStore.open_or_create(place, header)
        for scene_id in tqdm(scenes(source), desc=f"label with {teacher.name}", unit="scene"):
            if scene_id not in store:
                scene = source.scene(scene_id)
                write_labels(store, scene, source, labeller, calibration, config)
        return store, calibration

    def _store(self, part: Part, folder: Path) -> dict[str, Any]:
        (teacher,) = part.needs

        def unlabelled(source: SceneSource) -> list[str]:
            return [s for s in source.scene_ids("train") if s not in part.labelled]

        store, calibration = self.label_with(
            teacher,
            folder / STORE,
            unlabelled,
            flips=self.profile.flips,
            refinement=Refinement() if part.what == "refined" else None,
        )
        source = self.log.open(past_sweeps=0)
        scenes = unlabelled(source)
        truth = self._truth(source, scenes)
        quality = StoreQuality(store.header.taxonomy)
        for scene_id in scenes:
            _judge(quality, store, scene_id, source, truth)
        return {"quality": quality.to_json(), "free_passes": calibration.min_free_rays}

    def _features(self, part: Part, folder: Path) -> dict[str, Any]:
        (teacher,) = part.needs
        model = self._load_teacher(teacher)
        source = self.log.open(past_sweeps=model.preset.inputs.past_sweeps)
        scenes = (source.scene(scene_id) for scene_id in source.scene_ids("train"))
        frames = (frame for scene in scenes for frame in scene.frames)
        keep_features(OccupancyPredictor(model.module, model.preset), source, frames, folder)
        return {}

    def _student(self, part: Part, folder: Path) -> dict[str, Any]:
        chosen = preset(self.profile.student)
        teacher = self._master(part)
        source = self.log.open(past_sweeps=teacher.preset.inputs.past_sweeps if teacher else 0)
        labels: list[TargetSource] = [self._truth(source, part.labelled)]
        others = [s for s in source.scene_ids("train") if s not in part.labelled]
        if part.what in FROM_STORE:
            store = next(p for p in part.needs if p.kind == "store").folder(self.out) / STORE
            pseudo = PseudoLabels(
                store,
                expect_grid=chosen.grid,
                expect_taxonomy=chosen.taxonomy,
                balance=self.profile.balance,
            )
            truth = self._truth(source, others)
            altered: dict[str, TargetSource] = {
                "true-classes": TrueClasses(pseudo, truth),
                "true-mask": TrueMask(pseudo, truth),
                "raw": Unmasked(pseudo),
            }
            labels.append(altered.get(part.what, pseudo))
        elif part.what in FROM_FEATURES:
            labels.append(Unlabelled(others, chosen.grid))
        network, training = self._train(
            part, folder, chosen, self.profile.schooling, source, labels, teacher=teacher
        )
        save_checkpoint(folder / WEIGHTS, network, chosen.name, {})
        (folder / "state.pt").unlink(missing_ok=True)
        return training | {"scores": self._scores(network, chosen, source)}

    def _master(self, part: Part) -> _Master | None:
        """The teacher that a student is distilled from."""
        if part.what not in FROM_FEATURES:
            return None
        source = next(p for p in part.needs if p.kind in ("features", "teacher"))
        model = self._load_teacher(source.needs[0] if source.kind == "features" else source)
        features = source.folder(self.out) if source.kind == "features" else None
        return _Master(network=model.module, preset=model.preset, features=features)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Master:
    """A teacher to be distilled; ``features`` is where its features are kept, if they are."""

    network: OccupancyNet
    preset: Preset
    features: Path | None


def read_known(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """The results that ``study.json`` files tell of, by the keys of their parts.

    Raises:
        SetupError: a file is no ``study.json``.
    """
    by_key: dict[str, dict[str, Any]] = {}
    for path in paths:
        try:
            results = json.loads(path.read_text())["results"]
            by_key |= {str(result["key"]): result for result in results}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SetupError(f"{path}: not the study.json of a study: {error}") from error
    return by_key


def _bev_channels(network: OccupancyNet) -> int:
    """Of the BEV map that the head reads."""
    conv = network.occ_head.final_conv.get_submodule("conv")
    assert isinstance(conv, nn.Conv2d)
    return conv.in_channels


def _judge(
    quality: StoreQuality,
    store: LabelStore,
    scene_id: str,
    source: SceneSource,
    truth: GroundTruthTargets,
) -> None:
    stored, scene = labeled_scene(store, scene_id, source)
    for frame in scene.frames:
        labels = stored.frame(stored.index_of(frame.token))
        quality.update(labels.semantics, labels.mask, truth.labels(frame))
