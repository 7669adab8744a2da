"""The ground of one scene: streets, pavements, lots and slopes.

Scene frame: metres, Z up. Along a street ``s`` is the way on its centre line and ``d`` the distance
to its left; the main street is the first one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.compiled import compiled
from datasets.sources.synthetic.world.curves import Curve
from datasets.sources.synthetic.world.districts import District
from datasets.taxonomy import OCC3D_NUSCENES

ROAD, OTHER_FLAT, SIDEWALK, TERRAIN = (
    OCC3D_NUSCENES.id_of(n) for n in ("driveable_surface", "other_flat", "sidewalk", "terrain")
)
KERB_M = 0.14
LANE_M = 3.5
LOT_M = 22.0  # length of a lot along the street
N_LOTS = 64
_CORNER_M = 8.0
_KERB_RUN_M = 0.12
Floats = NDArray[np.float64]


def noise_texture(size: int = 256, seed: int = 7) -> NDArray[np.float32]:
    """Tileable value noise of four octaves, mean 0, about -1..1, (size, size)."""
    rng = np.random.default_rng(seed)
    out = np.zeros((size, size))
    axis = np.arange(size)
    for octave in range(4):
        n = 8 << octave
        table = rng.uniform(-1, 1, (n, n))
        position = axis * n / size
        i = position.astype(int)
        f = position - i
        f = f * f * (3 - 2 * f)
        rows = table[i] * (1 - f)[:, None] + table[(i + 1) % n] * f[:, None]
        out += (rows[:, i] * (1 - f) + rows[:, (i + 1) % n] * f) * 0.6**octave
    return np.asarray(out / np.abs(out).max(), np.float32)


NOISE = noise_texture()


def noise(u: NDArray[Any], v: NDArray[Any], period_m: float) -> NDArray[np.float32]:
    """Nearest sample of the noise that repeats every ``period_m``."""
    n = len(NOISE)
    i = (u * (n / period_m)).astype(np.int64) & (n - 1)
    j = (v * (n / period_m)).astype(np.int64) & (n - 1)
    return np.asarray(NOISE[i, j])


@dataclass(frozen=True, slots=True, kw_only=True)
class Street:
    """One street.

    Attributes:
        curve: its centre line.
        lanes: per direction.
        parking: a parking strip on either side.
        median_m: half the width of a raised strip between the directions, 0 for none.
        ends: it begins at the start of its curve, as the stem of a T.
        joins_m: where other streets meet it.
    """

    curve: Curve
    lanes: int
    parking: bool
    median_m: float
    ends: bool
    joins_m: tuple[float, ...]

    @property
    def half_m(self) -> float:
        return self.median_m + self.lanes * LANE_M + (2.3 if self.parking else 0.4)

    def lane_center(self, lane: int) -> float:
        """Distance of a lane's middle from the centre line; lane 0 is the innermost."""
        return self.median_m + (lane + 0.5) * LANE_M


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What lies at some points.

    Attributes:
        classes: uint8 Occ3D ids.
        street: int64, the street whose edge is nearest.
        s_m, d_m: in that street's coordinates.
        edge_m: distance outwards from the edge of the road (negative on it).
        cross_m: distance outwards from the edge of the next street (large without one).
    """

    classes: NDArray[np.uint8]
    street: NDArray[np.int64]
    s_m: Floats
    d_m: Floats
    edge_m: Floats
    cross_m: Floats


_JOINT_M = 1e-6  # a point abreast of where two arcs meet belongs to one of them, whatever rounding


@compiled
def _nearest(x: float, y: float, rows: Any, ends: bool) -> tuple[float, float, float]:
    """Distance from a curve, and s and d of the nearest point on it.

    ``rows``: x, y, s, length, curvature, cosine and sine of the heading of each segment.
    """
    best, best_s, side = 1e18, 0.0, 0.0
    for i in range(rows.shape[0]):
        px, py, s0, length, bend, c, n = rows[i]
        u, v = (x - px) * c + (y - py) * n, -(x - px) * n + (y - py) * c
        if bend == 0.0:
            t = u
            if (i > 0 or ends) and t < 0.0:
                t = 0.0
            if i < rows.shape[0] - 1 and t > length:
                t = length
            gap = abs(v) if t == u else np.sqrt((u - t) * (u - t) + v * v)
            left = v
        else:
            r = 1.0 / bend
            radius = np.sqrt(u * u + (v - r) * (v - r))
            if abs(radius - abs(r)) >= best:
                continue
            t = np.arctan2(u, (r - v) * np.sign(r)) / abs(bend)
            if t < -_JOINT_M:  # beyond half a turn
                t += 2 * np.pi * abs(r)
            if t > length + _JOINT_M:
                continue
            left = (abs(r) - radius) * np.sign(r)
            gap = abs(left)
        if gap < best:
            best, best_s, side = gap, s0 + t, left
    return best, best_s, side


@compiled
def _locate(
    x: Any, y: Any, rows: Any, first: Any, half: Any, ends: Any, out: Any, street: Any
) -> None:
    """Columns of ``out``: s, d, edge, cross."""
    for p in range(x.shape[0]):
        e1, e2, own, s1, d1 = 1e18, 1e3, 0, 0.0, 0.0
        for k in range(half.shape[0]):
            gap, s, d = _nearest(x[p], y[p], rows[first[k] : first[k + 1]], ends[k])
            e = gap - half[k]
            if e < e1:
                if k > 0:
                    e2 = e1
                e1, own, s1, d1 = e, k, s, d
            elif e < e2:
                e2 = e
        edge, r = e1, _CORNER_M
        if e1 > 0.0 and e2 < r:  # the corners are rounded
            edge = r - np.hypot(r - e1, r - e2)
        out[p, 0], out[p, 1], out[p, 2], out[p, 3] = s1, d1, edge, e2
        street[p] = own


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The plan of one scene.

    Attributes:
        district: what is built there.
        streets: the main street first.
        route: where the ego vehicle drives; ``route_d_m`` to its left.
        turns: whether the route leaves the main street.
        hand: 1 where traffic keeps to the right, -1 to the left.
        median_class: what covers the strip between the directions.
        verge_m: width of grass between kerb and sidewalk.
        walk_m: width of the sidewalk.
        path_m: distance of a footpath behind the sidewalk from the road's edge, 0 for none.
        lots: (streets, 2, 64) uint8 class of the ground behind the sidewalk, by side and lot.
        hills: (5, 4) of amplitude, wave numbers in x and y, phase.
        rise: slope of the lots away from the road.
    """

    district: District
    streets: tuple[Street, ...]
    route: Curve
    route_d_m: float
    turns: bool
    hand: int
    median_class: int
    verge_m: float
    walk_m: float
    path_m: float
    lots: NDArray[np.uint8]
    hills: Floats
    rise: float

    @property
    def main(self) -> Street:
        return self.streets[0]

    @property
    def pavement_m(self) -> float:
        """From the kerb to the far side of the sidewalk."""
        return self.verge_m + self.walk_m

    def lane_d(self, street: Street, lane: int, way: int) -> float:
        """``d`` of a lane whose traffic runs along (1) or against (-1) ``s``."""
        return -self.hand * way * street.lane_center(lane)

    @cached_property
    def _tables(self) -> tuple[Any, ...]:
        rows = []
        for street in self.streets:
            x, y, yaw, s, length, bend = street.curve.segments.T
            rows.append(np.stack([x, y, s, length, bend, np.cos(yaw), np.sin(yaw)], 1))
        return (
            np.concatenate(rows),
            np.cumsum([0, *map(len, rows)]),
            np.array([street.half_m for street in self.streets]),
            np.array([street.ends for street in self.streets]),
            np.array([street.median_m for street in self.streets]),
        )

    def ground(self, x: Floats, y: Floats) -> Ground:
        """Class and road coordinates of points of any shape."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        rows, first, half, ends, medians = self._tables
        out, street = np.empty((x.size, 4)), np.empty(x.size, np.int64)
        _locate(x.ravel(), y.ravel(), rows, first, half, ends, out, street)
        street = street.reshape(x.shape)
        s, d, edge, cross = (out[:, i].reshape(x.shape) for i in range(4))
        lot = np.floor(s / LOT_M).astype(np.int64) % N_LOTS
        behind = self.lots[street, (d > 0).astype(np.int64), lot]
        if self.path_m > 0:
            swing = np.abs(edge - self.path_m - 2.5 * np.sin(s / 11)) < 1.1
            behind = np.where(swing & (behind == TERRAIN), SIDEWALK, behind)
        walk = np.where(edge < self.verge_m, TERRAIN, SIDEWALK)
        classes = np.where(edge < 0, ROAD, np.where(edge < self.pavement_m, walk, behind))
        strip = (np.abs(d) < medians[street] - 0.2) & (cross > 7.0)
        classes = np.where(strip, self.median_class, classes).astype(np.uint8)
        return Ground(classes=classes, street=street, s_m=s, d_m=d, edge_m=edge, cross_m=cross)

    def height(self, x: Floats, y: Floats) -> Floats:
        """Height of the ground."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        z = np.zeros_like(x)
        for amplitude, kx, ky, phase in self.hills:
            z += amplitude * np.sin(kx * x + ky * y + phase)
        g = self.ground(x, y)
        z += KERB_M * np.clip(g.edge_m / _KERB_RUN_M, 0, 1)
        z += KERB_M * ((g.edge_m < 0) & (g.classes != ROAD))
        beyond = np.maximum(g.edge_m - self.pavement_m, 0)
        z += self.rise * np.minimum(beyond, 30) * np.minimum(beyond / 8, 1)
        soft = (g.classes == TERRAIN) & (g.edge_m > 0)
        return np.asarray(z + np.where(soft, 0.07 * noise(x, y, 40.0), 0.0))
