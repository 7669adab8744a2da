"""What annotations say of a box besides its pose: returns in it, and how visible it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.transforms import Transform, apply, inverse
from datasets.sources.synthetic.sensors.ray_tracing import Moment
from datasets.sources.synthetic.world.builder import Actor


def points_in_box(points_m: NDArray[np.float64], actor: Actor, pose: Transform) -> int:
    """Returns within the annotated box; points sorted by x, points and pose in the scene frame."""
    reach = float(np.linalg.norm(actor.size_m)) / 2
    center = apply(pose, np.asarray(actor.center_m))
    lo, hi = np.searchsorted(points_m[:, 0], (center[0] - reach, center[0] + reach))
    local = apply(inverse(pose), points_m[lo:hi]) - np.asarray(actor.center_m)
    return int((np.abs(local) <= np.asarray(actor.size_m) / 2).all(axis=1).sum())


_PROBES = np.array(np.meshgrid(*[(-0.35, 0.0, 0.35)] * 3)).reshape(3, -1).T


def visibility_tokens(
    actors: Sequence[Actor], poses: Sequence[Transform], T_scene_ego: Transform, moment: Moment
) -> list[str]:
    """Visibility tokens: the share of 27 lines from above the ego's front to a box that are free.

    (nuScenes: the share of the object that shows in the pictures.)
    """
    if not actors:
        return []
    targets = np.concatenate(
        [
            apply(T, _PROBES * np.asarray(a.size_m) + np.asarray(a.center_m))
            for a, T in zip(actors, poses, strict=True)
        ]
    )
    eye = apply(T_scene_ego, np.array([1.2, 0.0, 1.6]))
    lines = targets - eye
    distance = np.linalg.norm(lines, axis=1)
    hits = moment.cast(eye, (lines / distance[:, None]).astype(np.float32))
    reach = np.repeat([np.linalg.norm(a.size_m) / 2 for a in actors], len(_PROBES))
    share = (hits.range_m > distance - reach).reshape(len(actors), -1).mean(axis=1)
    return [str(1 + int(i)) for i in np.searchsorted((0.4, 0.6, 0.8), share, side="right")]
