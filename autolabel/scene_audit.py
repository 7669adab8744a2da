"""Everything the audit gathers of one scene: votes on its labels, and how log and labels fit.

Legend: S shifts, K classes, R rings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from autolabel.audited_labels import Header, LabelledScene
from autolabel.camera_fit import Crossing, crossings
from autolabel.motion_fit import MotionPair, Trajectory, fit_pair, pairs_apart
from autolabel.votes import (
    VOTES,
    Ballot,
    evidence,
    fit,
    flicker,
    frame_votes,
    observed,
    shifted_fits,
)
from datasets.errors import SceneError
from datasets.frames import Frame, Scene, SceneSource, in_lidar_frame, points_in_ego
from datasets.log_checks import (
    CameraAgreement,
    camera_agreement,
    columns,
    ground_height_m,
    ground_slopes,
    spread,
)
from datasets.voxel_labels import FrameLabels, MaskBit

CAMERA_FRAMES = 8
MAX_FRAMES = 40
FREE_DOUBT = 0.25
"""Most doubtful free voxels lie high and far, where no benchmark scores: with this weight the error
expected of 40 city scenes (seed 101) was 10.0 %, where a benchmark's mask found 10.6 %."""
MOVED_M = 2.0
"""Neighbouring frames nearer than this have the same labels in their own frames."""

Predict = Callable[[SceneSource, Scene, int], NDArray[np.uint8]]
"""Labels (X, Y, Z) of a frame of a scene, for the check of flips."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFit:
    """How well a frame's sweeps fit labels (``votes.fit``, 0..1).

    Attributes:
        own: of this frame; ``shifted``: moved by each of ``votes.SHIFTS``.
        earlier, later: of the neighbouring frames, as if they were this one's; NaN where the
            vehicle hardly moved.
        other: of a frame of another scene; NaN without one.
    """

    own: float
    shifted: tuple[float, ...]
    earlier: float
    later: float
    other: float


@dataclass(slots=True, kw_only=True)
class SceneAudit:
    """What was gathered of one scene.

    Attributes:
        votes: by name (``VOTES``).
        expected_wrong: of the ``judged`` voxels, by the store's confidence (``expected_wrong``).
        judged: voxels that a camera sees, or else that are observed; ``untrusted``: of these those
            that are not trusted.
        flips_differ, flips_judged: observed voxels whose class changes with mirrored inputs.
        slopes: (2,) of the ground along x and y, and heights in metres, by frame.
        problems: what could not be read, one line each.
    """

    scene_id: str
    frames: int = 0
    votes: dict[str, Ballot] = field(default_factory=dict)
    expected_wrong: float = 0.0
    judged: int = 0
    untrusted: int = 0
    flips_differ: int = 0
    flips_judged: int = 0
    fits: list[LabelFit] = field(default_factory=list)
    motion: list[MotionPair] = field(default_factory=list)
    slopes: list[NDArray[np.float64]] = field(default_factory=list)
    heights_m: list[float] = field(default_factory=list)
    cameras: dict[str, list[CameraAgreement]] = field(default_factory=dict)
    crossings: list[Crossing] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def expected_wrong(labels: FrameLabels, judged: NDArray[np.bool_], header: Header) -> float:
    """How many of these voxels (X, Y, Z) the store's confidence expects to be wrong.

    A free voxel counts by ``FREE_DOUBT``.
    """
    doubt = 1 - np.asarray(header.levels)[labels.confidence]
    doubt[labels.semantics == header.taxonomy.free_id] *= FREE_DOUBT
    return float(doubt[judged].sum())


@dataclass(slots=True)
class Auditor:
    """Audits scene after scene of one set of labels.

    Args:
        source: opened with ``votes.HELD_OUT_SWEEPS`` future sweeps.
        predict: labels of a teacher with mirrored inputs; None: no check of flips.
    """

    header: Header
    source: SceneSource
    predict: Predict | None = None
    flip_frames: int = 2
    _other: NDArray[np.bool_] | None = None

    def audit(self, labelled: LabelledScene, scene: Scene) -> SceneAudit:
        """A frame that cannot be read is left out and noted."""
        out = SceneAudit(scene_id=scene.scene_id)
        n = self.header.taxonomy.n_classes
        out.votes = {name: Ballot.none(n) for name in VOTES}
        there = {token: k for k, token in enumerate(labelled.frame_tokens)}
        frames = [f for f in scene.frames if f.token in there]
        chosen = set(spread(len(frames), MAX_FRAMES))
        labels: dict[int, FrameLabels] = {}

        def read(i: int) -> FrameLabels | None:
            if not 0 <= i < len(frames):
                return None
            if i not in labels:
                labels[i] = labelled.frame(there[frames[i].token])
            return labels[i]

        for i in sorted(chosen):
            try:
                self._frame(out, frames, i, read)
            except SceneError as error:
                out.problems.append(str(error))
            for done in [k for k in labels if k < i]:
                del labels[done]
        self._log(out, frames)
        if self.predict is not None:
            self._flips(out, scene, frames, labelled, there)
        middle = len(frames) // 2
        try:
            if (last := read(middle)) is not None:
                self._other = last.semantics != self.header.taxonomy.free_id
        except SceneError:
            pass  # noted above
        return out

    def _frame(
        self,
        out: SceneAudit,
        frames: list[Frame],
        i: int,
        read: Callable[[int], FrameLabels | None],
    ) -> None:
        grid, taxonomy = self.header.grid, self.header.taxonomy
        frame, labels = frames[i], read(i)
        assert labels is not None
        seen = None
        if frame.lidar is not None:
            placed = in_lidar_frame(frame) if self.header.frame == "lidar" else frame
            seen = evidence(self.source, placed, grid)
        judged = (labels.mask & np.uint8(MaskBit.CAMERA_VISIBLE)) > 0
        judged = judged if judged.any() else observed(labels)
        if len(self.header.levels) > 1:
            out.expected_wrong += expected_wrong(labels, judged, self.header)
            out.judged += int(judged.sum())
            out.untrusted += int((judged & ((labels.mask & np.uint8(MaskBit.TRUSTED)) == 0)).sum())
        out.frames += 1
        if seen is None:
            return
        for name, ballot in frame_votes(labels, seen, grid, taxonomy).items():
            out.votes[name] = out.votes[name] + ballot
        free = taxonomy.free_id

        def beside(j: int) -> float:
            if not 0 <= j < len(frames):
                return float("nan")
            moved = frames[j].T_global_ego[:3, 3] - frame.T_global_ego[:3, 3]
            neighbour = read(j)
            if np.linalg.norm(moved) < MOVED_M or neighbour is None:
                return float("nan")
            return fit(neighbour.semantics != free, seen)

        if (later := read(i + 1)) is not None:
            out.votes["flicker"] += flicker(labels, later, grid, taxonomy)
        occupied = labels.semantics != free
        out.fits.append(
            LabelFit(
                own=fit(occupied, seen),
                shifted=shifted_fits(occupied, seen),
                earlier=beside(i - 1),
                later=beside(i + 1),
                other=float("nan") if self._other is None else fit(self._other, seen),
            )
        )

    def _log(self, out: SceneAudit, frames: list[Frame]) -> None:
        """Poses, LiDAR and cameras, whatever the labels say."""
        pairs = pairs_apart(frames)
        with_pictures = {frames[k].token for k in spread(len(frames), CAMERA_FRAMES)}
        wanted = with_pictures | {f.token for pair in pairs for f in pair}
        upright: dict[str, NDArray[np.float64]] = {}
        for frame in frames:
            if frame.token not in wanted or frame.lidar is None:
                continue
            try:
                points = points_in_ego(self.source, frame)
                upright[frame.token] = columns(points)
                if (slopes := ground_slopes(points)) is not None:
                    out.slopes.append(slopes)
                if (height := ground_height_m(points)) is not None:
                    out.heights_m.append(height)
                if frame.token in with_pictures:
                    self._pictures(out, frame, points)
            except SceneError as error:
                if str(error) not in out.problems:
                    out.problems.append(str(error))
        trajectory = Trajectory(frames)
        for a, b in pairs:
            if a.token in upright and b.token in upright:
                pair = fit_pair(a, b, upright[a.token], upright[b.token], trajectory)
                if pair is not None:
                    out.motion.append(pair)

    def _pictures(self, out: SceneAudit, frame: Frame, points: NDArray[np.float32]) -> None:
        pictures = [self.source.read_image(view) for view in frame.cameras]
        for view, picture in zip(frame.cameras, pictures, strict=True):
            agreement = camera_agreement(points, view, picture)
            out.cameras.setdefault(view.name, []).append(agreement)
        out.crossings += crossings(points, frame.cameras, pictures)

    def _flips(
        self,
        out: SceneAudit,
        scene: Scene,
        frames: list[Frame],
        labelled: LabelledScene,
        there: dict[str, int],
    ) -> None:
        assert self.predict is not None
        position = {f.token: k for k, f in enumerate(scene.frames)}
        for k in spread(len(frames), self.flip_frames):
            token = frames[k].token
            try:
                mirrored = self.predict(self.source, scene, position[token])
                labels = labelled.frame(there[token])
            except SceneError as error:
                out.problems.append(str(error))
                continue
            seen = observed(labels)
            out.flips_judged += int(seen.sum())
            out.flips_differ += int((mirrored != labels.semantics)[seen].sum())
