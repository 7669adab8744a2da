"""Check of poses and LiDAR extrinsics: static structure must stay in place.

Upright columns (``datasets.log_checks.ground.columns``) of two frames some metres apart are
registered with the stated motion. The check counts the columns that meet, and those that would meet
with the later frame up to 2 m away, with the LiDAR turned, or with another length of the motion.
Under correct poses most columns meet as stated, in each pair. Their share depends on the street, so
it has no threshold.

The thresholds were chosen on the built-in city, seed 9000 (8 scenes), and are reported on others:
``scripts/benchmarks/log_checks.py``.

Legend: C columns, P pairs of frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from datasets.frames import Frame
from datasets.geometry.transforms import Transform, apply, from_yaw, inverse
from datasets.log_checks.ground import spread
from datasets.log_checks.motion import Finding
from datasets.log_checks.projection import TURNS_DEG

PAIR_MOVED_M, PAIR_APART_S = 3.0, 3.0
MEET_M = 0.2
LENGTHS = (0.75, 0.9, 1.1, 1.25)
ELSEWHERE_M = np.stack(np.meshgrid(*(np.arange(-10, 11) * 0.2,) * 2, indexing="ij"), -1).reshape(
    -1, 2
)
"""(441, 2) where else the later frame might stand."""
MIN_ELSEWHERE_M = 0.3
MIN_COLUMNS = 40
MIN_BETTER_SHARE, MIN_BETTER_PAIRS = 0.05, 0.75
MIN_ABOVE_CHANCE, MIN_MEETING = 2.0, 0.04
OTHERWISE = (
    *(f"the LiDAR turned by {degrees:+.0f} degrees about its vertical" for degrees in TURNS_DEG),
    *(f"the motion {length:g} times as long" for length in LENGTHS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAgreement:
    """How many columns of one frame have one of a later frame within 0.2 m, horizontally.

    Attributes:
        n: columns looked up.
        stated: of these, met with the stated motion; ``unmoved``: with the motion left out.
        otherwise: met under each of ``OTHERWISE``.
        best: met at the best place within 2 m; ``best_off_m``: how far it is from the stated one.
        chance: the median over all these places.
        moved_m: metres between the frames.
    """

    n: int
    stated: int = 0
    unmoved: int = 0
    otherwise: tuple[int, ...] = (0,) * len(OTHERWISE)
    best: int = 0
    best_off_m: float = 0.0
    chance: float = 0.0
    moved_m: float

    @property
    def elsewhere(self) -> bool:
        """Whether clearly more columns meet at another place."""
        margin = 2 * np.sqrt(self.stated + 1)
        return self.best_off_m >= MIN_ELSEWHERE_M and self.best > 1.2 * self.stated + margin


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticAgreement:
    """The pairs of a scene, of one LiDAR."""

    pairs: tuple[PairAgreement, ...] = ()

    @property
    def n(self) -> int:
        return sum(p.n for p in self.pairs)

    @property
    def stated(self) -> int:
        return sum(p.stated for p in self.pairs)

    @property
    def unmoved(self) -> int:
        return sum(p.unmoved for p in self.pairs)

    def __str__(self) -> str:
        if not self.pairs:
            return "not tested: no two frames 3 m and at most 3 s apart"
        stated, unmoved = (100 * n / max(self.n, 1) for n in (self.stated, self.unmoved))
        distance = float(np.mean([p.moved_m for p in self.pairs]))
        return (
            f"{stated:.0f} % of {self.n} upright columns meet within 0.2 m, {unmoved:.0f} % "
            f"without the motion ({len(self.pairs)} pairs, {distance:.1f} m apart)"
        )

    def findings(self, lidar: str = "") -> list[Finding]:
        """Bad ones, or a note where there is too little structure to tell."""
        of_lidar = f" of {lidar}" if lidar else ""
        subject = f"poses or extrinsics of the LiDAR{of_lidar}"
        if self.n < MIN_COLUMNS:
            return [Finding(bad=False, text=f"static structure{of_lidar}: {self}")]
        stated = np.array([p.stated for p in self.pairs])
        alternatives = np.array([p.otherwise for p in self.pairs])
        best = int(alternatives.sum(axis=0).argmax())
        better = alternatives[:, best]
        threshold = max(self.stated + MIN_BETTER_SHARE * self.n, self.unmoved)
        if better.sum() > threshold and (better > stated).mean() >= MIN_BETTER_PAIRS:
            text = (
                f"{subject}: {100 * better.sum() / self.n:.0f} % of "
                f"columns would meet with {OTHERWISE[best]}, {100 * self.stated / self.n:.0f} % do "
                "as stated"
            )
            return [Finding(bad=True, text=text)]
        offsets_m = [p.best_off_m for p in self.pairs if p.elsewhere]
        if 2 * len(offsets_m) >= len(self.pairs):
            text = (
                f"{subject}: static structure does not stay in place: "
                f"in {len(offsets_m)} of {len(self.pairs)} pairs of frames it meets elsewhere, "
                f"{np.median(offsets_m):.1f} m away; {self}"
            )
            return [Finding(bad=True, text=text)]
        chance = sum(p.chance for p in self.pairs)
        threshold = max(MIN_ABOVE_CHANCE * chance + 2 * np.sqrt(chance + 1), MIN_MEETING * self.n)
        if self.stated < threshold:
            text = f"{subject}: static structure does not stay in place"
            return [Finding(bad=True, text=f"{text}: {self}")]
        return []


def pairs_to_compare(frames: Sequence[Frame], limit: int) -> list[tuple[Frame, Frame]]:
    """Frames with LiDAR and the first later one that is 3 m on, spread over the scene."""
    pairs = []
    for i, a in enumerate(frames):
        for b in frames[i + 1 :]:
            if b.timestamp_us - a.timestamp_us > PAIR_APART_S * 1e6:
                break
            moved = np.linalg.norm(b.T_global_ego[:3, 3] - a.T_global_ego[:3, 3])
            if moved >= PAIR_MOVED_M and a.lidar and b.lidar:
                pairs.append((a, b))
                break
    return [pairs[k] for k in spread(len(pairs), limit)]


def pair_agreement(
    T_b_a: Transform,
    T_a: Transform,
    T_b: Transform,
    columns_a: NDArray[np.float64],
    columns_b: NDArray[np.float64],
) -> PairAgreement:
    """Compare the upright structure of two frames, each (C, 3) in its own ego frame.

    Args:
        T_b_a: the stated motion, earlier ego to later ego.
        T_a, T_b: ``T_ego_lidar`` of the LiDAR in both.
    """
    moved = float(np.linalg.norm(T_b_a[:3, 3]))
    if not len(columns_a) or not len(columns_b):
        return PairAgreement(n=0, moved_m=moved)
    tree = cKDTree(columns_b[:, :2])

    def meeting(T: Transform, ours: NDArray[np.float64], theirs: Any = tree) -> int:
        distance, _ = theirs.query(apply(T, ours)[:, :2], distance_upper_bound=MEET_M)
        return int(np.isfinite(distance).sum())

    def turned(T_ego_lidar: Transform, degrees: float, points: NDArray[Any]) -> NDArray[Any]:
        turn = from_yaw(np.radians(degrees), [0, 0, 0])
        return apply(T_ego_lidar @ turn @ inverse(T_ego_lidar), points)

    def stretched(length: float) -> Transform:
        T = T_b_a.copy()
        T[:3, 3] *= length
        return T

    places = apply(T_b_a, columns_a)[None, :, :2] + ELSEWHERE_M[:, None]
    distance, _ = tree.query(places.reshape(-1, 2), distance_upper_bound=MEET_M)
    met = np.isfinite(distance).reshape(len(ELSEWHERE_M), -1).sum(axis=1)
    best = int(met.argmax())
    return PairAgreement(
        n=len(columns_a),
        stated=meeting(T_b_a, columns_a),
        unmoved=meeting(np.eye(4), columns_a),
        otherwise=(
            *(
                meeting(T_b_a, turned(T_a, d, columns_a), cKDTree(turned(T_b, d, columns_b)[:, :2]))
                for d in TURNS_DEG
            ),
            *(meeting(stretched(length), columns_a) for length in LENGTHS),
        ),
        best=int(met[best]),
        best_off_m=float(np.linalg.norm(ELSEWHERE_M[best])),
        chance=float(np.median(met)),
        moved_m=moved,
    )


def static_agreement(
    pairs: Sequence[tuple[Frame, Frame]],
    structure: dict[tuple[str, str], NDArray[np.float64]],
    lidar: str,
) -> StaticAgreement:
    """The pairs in which both frames have a sweep of a LiDAR.

    Args:
        structure: (C, 3) columns in the frame's ego frame, by token and LiDAR.
    """
    pairs_of_lidar = []
    for a, b in pairs:
        sweeps = [[s for s in f.moment if s.lidar == lidar] for f in (a, b)]
        if (
            not all(sweeps)
            or (a.token, lidar) not in structure
            or (b.token, lidar) not in structure
        ):
            continue
        pairs_of_lidar.append(
            pair_agreement(
                inverse(b.T_global_ego) @ a.T_global_ego,
                sweeps[0][0].T_ego_lidar,
                sweeps[1][0].T_ego_lidar,
                structure[a.token, lidar],
                structure[b.token, lidar],
            )
        )
    return StaticAgreement(pairs=tuple(pairs_of_lidar))
