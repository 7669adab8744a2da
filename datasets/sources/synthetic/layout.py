"""The ground of one scene: a main road, perhaps a crossing street, pavements, lots and slopes.

Scene frame: metres, Z up; the main road runs along +X near Y = 0. Traffic keeps to the right, so
the ego vehicle drives at negative ``d``. ``s`` is the X coordinate of a point on the centre line
and ``d`` the distance to its left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.taxonomy import OCC3D_NUSCENES

ROAD, OTHER_FLAT, SIDEWALK, TERRAIN = (
    OCC3D_NUSCENES.id_of(n) for n in ("driveable_surface", "other_flat", "sidewalk", "terrain")
)
KERB_M = 0.14
LANE_M = 3.5
Floats = NDArray[np.float64]

DISTRICTS = ("downtown", "suburb", "park")


def noise_texture(size: int = 256, seed: int = 7) -> NDArray[np.float32]:
    """Tileable value noise of four octaves, mean 0, about -1..1, (size, size)."""
    rng = np.random.default_rng(seed)
    out = np.zeros((size, size))
    axis = np.arange(size)
    for octave in range(4):
        n = 8 << octave
        table = rng.uniform(-1, 1, (n, n))
        at = axis * n / size
        i = at.astype(int)
        f = at - i
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
class Ground:
    """What lies at some points.

    Attributes:
        classes: uint8 Occ3D ids.
        edge_m: distance outwards from the edge of the road (negative on it).
        d_m: distance to the left of the main road's centre line.
        cross_m: distance outwards from the edge of the crossing street (large without one).
    """

    classes: NDArray[np.uint8]
    edge_m: Floats
    d_m: Floats
    cross_m: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The plan of one scene.

    Attributes:
        district: one of ``DISTRICTS``.
        lanes: per direction.
        parking: a parking strip on either side.
        median_m: half the width of a raised strip between the directions, 0 for none.
        median_class: what covers it.
        verge_m: width of grass between kerb and sidewalk.
        walk_m: width of the sidewalk.
        bend: quadratic coefficient of the centre line (1/m).
        wave_m, wave_phase: amplitude and phase of its swing.
        cross_x: where a street crosses, NaN for none.
        cross_slope: its skew.
        lots: (2, 64) uint8 class of the ground behind the sidewalk, by side and 22 m block.
        hills: (5, 4) of amplitude, wave numbers in x and y, phase.
        rise: slope of parkland away from the road.
    """

    district: str
    lanes: int
    parking: bool
    median_m: float
    median_class: int
    verge_m: float
    walk_m: float
    bend: float
    wave_m: float
    wave_phase: float
    cross_x: float
    cross_slope: float
    lots: NDArray[np.uint8]
    hills: Floats
    rise: float

    @property
    def half_road_m(self) -> float:
        return self.median_m + self.lanes * LANE_M + (2.3 if self.parking else 0.4)

    @property
    def pavement_m(self) -> float:
        """From the kerb to the far side of the sidewalk."""
        return self.verge_m + self.walk_m

    @property
    def has_crossing(self) -> bool:
        return bool(np.isfinite(self.cross_x))

    def lane_center(self, lane: int) -> float:
        """Distance of a lane's middle from the centre line; lane 0 is the innermost."""
        return self.median_m + (lane + 0.5) * LANE_M

    def center(self, s: Floats) -> tuple[Floats, Floats]:
        """Y and slope of the main road's centre line."""
        k = 2 * np.pi / 130
        y = self.bend * s * s + self.wave_m * (
            np.sin(k * s + self.wave_phase) - np.sin(self.wave_phase)
        )
        return y, 2 * self.bend * s + self.wave_m * k * np.cos(k * s + self.wave_phase)

    def place(self, s: Floats, d: Floats) -> tuple[Floats, Floats, Floats]:
        """Road coordinates to x, y and the heading of the road."""
        s = np.asarray(s, np.float64)
        y, slope = self.center(s)
        yaw = np.arctan(slope)
        return s - d * np.sin(yaw), y + d * np.cos(yaw), yaw

    def ground(self, x: Floats, y: Floats) -> Ground:
        """Class and road distances of points of any shape."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        y0, slope = self.center(x)
        d = (y - y0) / np.sqrt(1 + slope * slope)
        e1 = np.abs(d) - self.half_road_m
        if self.has_crossing:
            m = self.cross_slope
            d2 = (x - self.cross_x - m * y) / np.sqrt(1 + m * m)
            e2 = np.abs(d2) - (LANE_M + 0.5)
            edge = np.minimum(e1, e2)
            r = 5.0  # the corners are rounded
            corner = (e1 > 0) & (e2 > 0) & (e1 < r) & (e2 < r)
            edge = np.where(corner, r - np.hypot(r - e1, r - e2), edge)
        else:
            e2 = np.full_like(d, 1e3)
            edge = e1
        block = np.floor((x + 700) / 22).astype(np.int64) % 64
        lot = self.lots[(d > 0).astype(np.int64), block]
        walk = np.where(edge < self.verge_m, TERRAIN, SIDEWALK)
        classes = np.where(edge < 0, ROAD, np.where(edge < self.pavement_m, walk, lot))
        if self.median_m > 0:
            classes = np.where(self._on_median(d, e2), self.median_class, classes)
        return Ground(classes=classes.astype(np.uint8), edge_m=edge, d_m=d, cross_m=e2)

    def _on_median(self, d: Floats, cross: Floats) -> NDArray[np.bool_]:
        return np.asarray((np.abs(d) < self.median_m - 0.2) & (cross > 4.0))

    def height(self, x: Floats, y: Floats) -> Floats:
        """Height of the ground."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        z = np.zeros_like(x)
        for amplitude, kx, ky, phase in self.hills:
            z += amplitude * np.sin(kx * x + ky * y + phase)
        g = self.ground(x, y)
        z += KERB_M * np.clip(g.edge_m / 0.12, 0, 1)
        if self.median_m > 0:
            z += KERB_M * self._on_median(g.d_m, g.cross_m)
        beyond = np.maximum(g.edge_m - self.pavement_m, 0)
        z += self.rise * np.minimum(beyond, 30) * np.minimum(beyond / 8, 1)
        soft = (g.classes == TERRAIN) & (g.edge_m > 0)
        return np.asarray(z + np.where(soft, 0.07 * noise(x, y, 40.0), 0.0))


def draw_layout(rng: np.random.Generator) -> Layout:
    """A plan at random."""
    district = DISTRICTS[int(rng.choice(3, p=(0.45, 0.35, 0.2)))]
    median = float(rng.uniform(0.9, 1.8)) if rng.random() < 0.35 else 0.0
    mix = {
        "downtown": (0.14, 0.2, 0.36, 0.3),
        "suburb": (0.06, 0.07, 0.1, 0.77),
        "park": (0.03, 0.05, 0.02, 0.9),
    }[district]
    hills = np.zeros((5, 4))
    for row in hills:
        wavelength, angle = rng.uniform(45, 160), rng.uniform(0, np.pi)
        k = 2 * np.pi / wavelength
        row[:] = (
            wavelength * 0.0016 * rng.uniform(0.3, 1),
            k * np.cos(angle),
            k * np.sin(angle),
            rng.uniform(0, 6.28),
        )
    shape = rng.random()
    return Layout(
        district=district,
        lanes=int(rng.choice((1, 2), p=(0.5, 0.5))),
        parking=bool(rng.random() < 0.55),
        median_m=median,
        median_class=OTHER_FLAT if rng.random() < 0.65 else TERRAIN,
        verge_m=float(rng.uniform(1.2, 2.6))
        if rng.random() < (0.25 if district == "downtown" else 0.6)
        else 0.0,
        walk_m=float(rng.uniform(2.0, 4.2)),
        bend=float(rng.choice((-1, 1)) * rng.uniform(0.0008, 0.0022)) if shape < 0.4 else 0.0,
        wave_m=float(rng.uniform(1.5, 4.0)) if 0.4 <= shape < 0.7 else 0.0,
        wave_phase=float(rng.uniform(0, 2 * np.pi)),
        cross_x=float(rng.uniform(5, 60)) if rng.random() < 0.55 else float("nan"),
        cross_slope=float(rng.uniform(-0.2, 0.2)),
        lots=rng.choice((ROAD, OTHER_FLAT, SIDEWALK, TERRAIN), size=(2, 64), p=mix).astype(
            np.uint8
        ),
        hills=hills,
        rise=float(rng.uniform(-0.02, 0.07)) if district != "downtown" else 0.0,
    )
