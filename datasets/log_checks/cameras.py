"""Checks of cameras against LiDAR: extrinsics, focal lengths, times, swapped cameras.

Depth edges of the LiDAR must lie on edges of the image. Each hypothesis about a camera (turned,
another focal length, late images, images of another camera) moves the depth edges. It is accepted
if they then lie on clearly stronger image edges, frame by frame. Hypotheses about all cameras are
tested on all together. Pitch has stricter thresholds, as tops and bottoms of objects attract edges.
Gross errors are tested first (``datasets.log_checks.conventions``).

In a single scene a fault of one camera is only a note: 5 % of correct scenes look like it, since
their frames show the same objects. ``MIN_SCENES`` scenes together make it a finding.

The thresholds were chosen on the built-in city, seeds 9000, 9001 and 9100 (28 scenes of 8 frames),
and are reported on others: ``scripts/benchmarks/log_checks.py``. How clearly a cause must be told
apart from others (``MAX_T_OTHERS``, ``MIN_T_NAMED``, ``MIN_T_SWAPPED``) was chosen on seeds 9002
and 9101 to 9105; what several scenes together must say of one camera (``MIN_SCENES``,
``MIN_GAIN_SCENES``) on 9101 to 9104 and 9111 to 9116.

Legend: E edges, H hypotheses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.frames import CameraView, Frame
from datasets.geometry.transforms import Transform, about_axis, apply, from_yaw, inverse
from datasets.log_checks.conventions import (
    Sums,
    convention_sums,
    wrong_convention,
)
from datasets.log_checks.motion import Finding
from datasets.log_checks.projection import (
    TURNS_DEG,
    depth_edges,
    gradient_under,
    image_gradient,
    project,
)

FOCAL_LENGTHS = (0.87, 0.91, 0.95, 1.05, 1.1, 1.15)
LATE_S = (-0.4, -0.3, -0.2, -0.1, 0.1, 0.2, 0.3, 0.4)
MIN_FRAMES, MIN_EDGES = 4, 400
MIN_TOGETHER_EDGES, MIN_CAMERAS = 500, 3
MIN_GAIN_TOGETHER, MIN_T_TOGETHER, MIN_SHARE_TOGETHER = 0.06, 2.5, 0.8
MIN_GAIN_ALONE = {"yaw": 0.25, "pitch": 0.7, "focal": 0.3}
MIN_T_ALONE = {"yaw": 2.5, "pitch": 4.0, "focal": 3.0}
MIN_SCENES, MIN_SHARE_SCENES = 3, 0.75
MIN_GAIN_SCENES = {"yaw": 0.15, "pitch": 0.5, "focal": 0.1}
MAX_T_OTHERS = -2.0
MIN_T_NAMED = 1.0
MIN_SWAPPED_EDGES, MIN_GAIN_SWAPPED, MIN_SUM_SWAPPED, MIN_T_SWAPPED = 120, 0.12, 0.4, 1.5
MIN_GRADIENT, MIN_GRADIENT_EDGES = 1.0, 1000
MIN_INSIDE = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """Attributes:
    kind: yaw, pitch, focal or late.
    amount: degrees, a factor, or seconds.
    text: what would fit better.
    """

    kind: str
    amount: float
    text: str


def _turned(axis: str, degrees: float) -> str:
    return f"its extrinsics turned by {degrees:+.0f} degrees about the camera's {axis} axis"


def _late(seconds: float) -> str:
    late = "later" if seconds > 0 else "earlier"
    return f"images taken {abs(seconds):.1f} s {late} than stated"


HYPOTHESES = (
    *(Hypothesis(kind="yaw", amount=d, text=_turned("y", d)) for d in TURNS_DEG),
    *(Hypothesis(kind="pitch", amount=d, text=_turned("x", d)) for d in TURNS_DEG),
    *(
        Hypothesis(kind="focal", amount=f, text=f"a focal length {f:g} times the stated one")
        for f in FOCAL_LENGTHS
    ),
    *(Hypothesis(kind="late", amount=s, text=_late(s)) for s in LATE_S),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraEvidence:
    """What the pictures of one camera say.

    Attributes:
        points: LiDAR points of all frames; ``inside``: of these in the picture.
        edges: (frames,) depth edges.
        stated: (frames,) the picture's gradient under them relative to the whole picture's, summed
            over edges.
        moved: (frames, H) the same under each of ``HYPOTHESES``.
        others: by camera, (frames,) the same in the picture of another camera of the frame.
        conventions: (frames, 1 + K + T) from ``convention_sums``.
    """

    points: int = 0
    inside: int = 0
    edges: tuple[int, ...] = ()
    stated: tuple[float, ...] = ()
    moved: tuple[tuple[float, ...], ...] = ()
    others: Mapping[str, tuple[float, ...]]
    conventions: tuple[tuple[Sums, ...], ...] = ()

    def __add__(self, other: CameraEvidence) -> CameraEvidence:
        # a camera that is missing in some frames is no partner to be mixed up with
        names = (
            self.others.keys() & other.others.keys()
            if self.edges and other.edges
            else self.others.keys() | other.others.keys()
        )
        return CameraEvidence(
            points=self.points + other.points,
            inside=self.inside + other.inside,
            edges=self.edges + other.edges,
            stated=self.stated + other.stated,
            moved=self.moved + other.moved,
            others={n: self.others.get(n, ()) + other.others.get(n, ()) for n in sorted(names)},
            conventions=self.conventions + other.conventions,
        )

    def gains(self) -> NDArray[np.float64]:
        """(frames, H) by how much each hypothesis raises the sums."""
        moved = np.array(self.moved, np.float64).reshape(-1, len(HYPOTHESES))
        gains: NDArray[np.float64] = moved - np.array(self.stated, np.float64)[:, None]
        return gains

    def __str__(self) -> str:
        share = 100 * self.inside / max(self.points, 1)
        n = sum(self.edges)
        if not n:
            return f"{share:.1f} % of the points lie in the image; no depth edges"
        return (
            f"{share:.1f} % of the points lie in the image; {n} depth edges lie on "
            f"{sum(self.stated) / n:.2f} times the mean gradient"
        )


NOTHING = CameraEvidence(others={})


def camera_evidence(
    frames: Sequence[Frame],
    k: int,
    points_ego: NDArray[Any],
    pictures: Mapping[str, NDArray[np.uint8]],
) -> dict[str, CameraEvidence]:
    """Evidence of one frame's pictures.

    Args:
        frames: of the scene; ``k``: which of them.
        points_ego: (N, 3) or wider, of its key sweep.
        pictures: (H, W, 3) RGB by camera.
    """
    frame = frames[k]
    gradients = {name: image_gradient(rgb) for name, rgb in pictures.items()}
    moves = [_motion(frames, k, seconds) for seconds in LATE_S]
    evidence = {}
    for view in frame.cameras:
        if view.name not in gradients:
            continue
        _, _, inside = project(points_ego, view)
        edges, gradient = depth_edges(points_ego, view), gradients[view.name]
        evidence[view.name] = CameraEvidence(
            points=len(points_ego),
            inside=int(inside.sum()),
            edges=(len(edges),),
            stated=(gradient_under(edges, view, gradient),),
            moved=(_moved(edges, view, gradient, moves),),
            conventions=(convention_sums(points_ego, view, gradient),),
            others={
                other.name: (gradient_under(edges, view, gradients[other.name]),)
                for other in frame.cameras
                if other.name in gradients
                and other.name != view.name
                # a picture of another shape is not taken for this camera's
                and other.width * view.height == view.width * other.height
            },
        )
    return evidence


def _moved(
    edges: NDArray[np.float64],
    view: CameraView,
    gradient: NDArray[np.float64],
    moves: list[Transform],
) -> tuple[float, ...]:
    T_camera_ego = inverse(view.T_ego_camera)
    sums = []
    for hypothesis in HYPOTHESES:
        moved, seen_by = edges, view
        if hypothesis.kind == "focal":
            K = view.intrinsics.copy()
            K[:2, :2] *= hypothesis.amount
            seen_by = replace(view, intrinsics=K)
        elif hypothesis.kind == "late":
            T_ego_then = moves[LATE_S.index(hypothesis.amount)]
            moved = apply(T_camera_ego @ inverse(T_ego_then) @ view.T_ego_camera, edges)
        else:
            axis = 1 if hypothesis.kind == "yaw" else 0
            moved = apply(about_axis(axis, -hypothesis.amount), edges)
        sums.append(gradient_under(moved, seen_by, gradient))
    return tuple(sums)


def _motion(frames: Sequence[Frame], k: int, seconds: float) -> Transform:
    """Where the vehicle of a frame is so much later, in its ego frame, going on as it does."""
    i = min(k, len(frames) - 2)
    if i < 0:
        return np.eye(4)
    a, b = frames[i], frames[i + 1]
    step = inverse(a.T_global_ego) @ b.T_global_ego
    share = seconds / ((b.timestamp_us - a.timestamp_us) * 1e-6)
    yaw = float(np.arctan2(step[1, 0], step[0, 0]))
    return from_yaw(share * yaw, (share * step[:3, 3]).tolist())


def camera_findings(scenes: Sequence[Mapping[str, CameraEvidence]]) -> list[Finding]:
    """What is wrong with the cameras of a scene, or of several together; one finding a cause.

    Where several hypotheses about single cameras hold at a time, or one that fits the others too,
    none is named: then it is the LiDAR, or something that is not asked for here.

    Args:
        scenes: the evidence of each, by camera.
    """
    cameras = added(scenes)
    of_conventions = [np.array(c.conventions, np.float64) for c in cameras.values()]
    if text := wrong_convention(of_conventions, len(scenes)):
        return [_bad(text)]
    findings = []
    for name, c in cameras.items():
        if c.points and c.inside < MIN_INSIDE * c.points:
            share = 100 * c.inside / c.points
            findings.append(_bad(f"{name}: {share:.2f} % of the points lie in its image"))
    if findings:
        return findings
    if swapped := _swapped(cameras):
        return [swapped]
    if common_cause := _together(cameras):
        return [common_cause]
    single = [cause for name in cameras if (cause := _alone(name, cameras, scenes))]
    if single:
        text = single[0][1]
        if len(single) > 1 or not text:
            names = ", ".join(name for name, _ in single)
            text = (
                f"cameras and LiDAR do not fit together ({names}); the cause is not told: "
                "extrinsics of the LiDAR or of these cameras, times or focal lengths"
            )
        if len(scenes) >= MIN_SCENES:
            return [_bad(text)]
        text += f"; whether it is so or what happens to stand there, {MIN_SCENES} scenes would tell"
        return [Finding(bad=False, text=text)]
    for name, c in cameras.items():
        n = sum(c.edges)
        if n >= MIN_GRADIENT_EDGES and sum(c.stated) < MIN_GRADIENT * n:
            findings.append(_bad(f"{name}: edges do not lie on its image's: {c}"))
    return findings


def added(scenes: Iterable[Mapping[str, CameraEvidence]]) -> dict[str, CameraEvidence]:
    """The evidence of several scenes, or frames, by camera."""
    cameras: dict[str, CameraEvidence] = {}
    for scene in scenes:
        for name, evidence in scene.items():
            cameras[name] = cameras.get(name, NOTHING) + evidence
    return cameras


def _bad(text: str) -> Finding:
    return Finding(bad=True, text=text)


def _swapped(cameras: Mapping[str, CameraEvidence]) -> Finding | None:
    """Two cameras whose depth edges each lie better in the image of the other."""
    best: tuple[float, str, str] | None = None
    for a, of_a in cameras.items():
        for b, of_b in cameras.items():
            if a < b and b in of_a.others and a in of_b.others:
                n = sum(of_a.edges), sum(of_b.edges)
                if min(n) < MIN_SWAPPED_EDGES or min(len(of_a.edges), len(of_b.edges)) < MIN_FRAMES:
                    continue
                gains = (
                    (sum(of_a.others[b]) - sum(of_a.stated)) / n[0],
                    (sum(of_b.others[a]) - sum(of_b.stated)) / n[1],
                )
                if min(gains) < MIN_GAIN_SWAPPED or sum(gains) < MIN_SUM_SWAPPED:
                    continue
                if min(_swap_t(of_a, b), _swap_t(of_b, a)) < MIN_T_SWAPPED:
                    continue
                # another cause that fits both better than the mix-up does
                moved = of_a.gains().sum(axis=0) / n[0] + of_b.gains().sum(axis=0) / n[1]
                if sum(gains) > float(moved.max()):
                    best = max(best or (0.0, a, b), (sum(gains), a, b))
    if best is None:
        return None
    return _bad(f"images of {best[1]} and {best[2]} look swapped: each fits the other camera")


def _swap_t(camera: CameraEvidence, other: str) -> float:
    """How surely its depth edges lie better in the image of another camera, frame by frame."""
    gains = np.array(camera.others[other]) - np.array(camera.stated)
    return _t(gains / np.maximum(camera.edges, 1))


def _together(cameras: Mapping[str, CameraEvidence]) -> Finding | None:
    """A focal length or a delay of all cameras."""
    judged = _whole(cameras.values())
    n = sum(sum(c.edges) for c in judged)
    if len(judged) < MIN_CAMERAS or n < MIN_TOGETHER_EDGES:
        return None
    of_all = [i for i, h in enumerate(HYPOTHESES) if h.kind in ("focal", "late")]
    gains = np.array([c.gains() for c in judged])  # (cameras, frames, H)
    best = max(of_all, key=lambda i: float(gains[:, :, i].sum()))
    # the best of another kind: all cameras turned alike are the LiDAR's turn or the vehicle's frame
    rival = max(
        (i for i, h in enumerate(HYPOTHESES) if h.kind != HYPOTHESES[best].kind),
        key=lambda i: float(gains[:, :, i].sum()),
    )
    if gains[:, :, rival].sum() > gains[:, :, best].sum():
        return None
    share = float((gains[:, :, best].sum(axis=1) > 0).mean())
    edges = np.array([c.edges for c in judged]).sum(axis=0)
    per_frame = gains.sum(axis=0) / np.maximum(edges, 1)[:, None]  # (frames, H)
    gain = float(gains[:, :, best].sum()) / n
    if (
        gain < MIN_GAIN_TOGETHER
        or share < MIN_SHARE_TOGETHER
        or _t(per_frame[:, best]) < MIN_T_TOGETHER
    ):
        return None
    if _t(per_frame[:, best] - per_frame[:, rival]) < MIN_T_NAMED:
        return _bad(
            "cameras and LiDAR do not fit together; the cause is not told: two fit about as well "
            f"({HYPOTHESES[best].text}; {HYPOTHESES[rival].text})"
        )
    stated = sum(sum(c.stated) for c in judged) / n
    return _bad(
        f"all cameras: {HYPOTHESES[best].text} would fit better: depth edges would lie on "
        f"{stated + gain:.2f} times the mean gradient, {stated:.2f} do as stated"
    )


def _alone(
    name: str,
    cameras: Mapping[str, CameraEvidence],
    scenes: Sequence[Mapping[str, CameraEvidence]],
) -> tuple[str, str] | None:
    """The camera and what would fit it clearly better; no text where the cause is not told.

    It is told where no other hypothesis fits this camera better, and the other cameras clearly
    worse: what may hold for them too is no fault of this one.
    """
    c = cameras[name]
    n = sum(c.edges)
    if n < MIN_EDGES or len(c.edges) < MIN_FRAMES:
        return None
    gains = c.gains()
    total = gains.sum(axis=0)
    by_scene = np.array([s[name].gains().sum(axis=0) for s in scenes if name in s])
    min_gain = MIN_GAIN_SCENES if len(scenes) >= MIN_SCENES else MIN_GAIN_ALONE
    best: tuple[float, int] | None = None
    for i, h in enumerate(HYPOTHESES):
        if h.kind not in min_gain or (h.kind != "focal" and abs(h.amount) < 2):
            continue
        gain = float(total[i]) / n
        per_frame = gains[:, i] / np.maximum(c.edges, 1)
        if (
            gain >= min_gain[h.kind]
            and _t(per_frame) >= MIN_T_ALONE[h.kind]
            and (by_scene[:, i] > 0).mean() >= MIN_SHARE_SCENES
        ):
            best = max(best or (0.0, i), (gain, i))
    if best is None:
        return None
    is_certain = total[best[1]] >= total.max() and _worsens(
        best[1], [other for key, other in cameras.items() if key != name]
    )
    return name, f"{name}: {HYPOTHESES[best[1]].text} would fit better: {c}" if is_certain else ""


def _worsens(hypothesis: int, cameras: Sequence[CameraEvidence]) -> bool:
    """Whether it fits these cameras together clearly worse than what is stated, frame by frame."""
    judged = _whole(cameras)
    edges = np.array([c.edges for c in judged]).sum(axis=0)
    if edges.sum() < MIN_TOGETHER_EDGES:
        return False
    gains = np.array([c.gains()[:, hypothesis] for c in judged]).sum(axis=0)
    return _t(gains / np.maximum(edges, 1)) <= MAX_T_OTHERS


def _whole(cameras: Iterable[CameraEvidence]) -> list[CameraEvidence]:
    """Those with depth edges, in as many frames as any has, and enough of them."""
    judged = [c for c in cameras if sum(c.edges) and len(c.edges) >= MIN_FRAMES]
    n_frames = max((len(c.edges) for c in judged), default=0)
    return [c for c in judged if len(c.edges) == n_frames]


def _t(values: NDArray[np.float64]) -> float:
    """Mean over standard error: how sure it is that the mean is not zero."""
    error = float(values.std(ddof=1)) / np.sqrt(len(values))
    return float(values.mean()) / max(float(error), 1e-9)
