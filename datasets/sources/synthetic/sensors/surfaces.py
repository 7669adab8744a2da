"""Colours of points on the ground and on meshes: textures, markings, facades."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.sources.synthetic.objects.shapes import Finish
from datasets.sources.synthetic.sensors.ray_tracing import MOVING, STATIC, Moment
from datasets.sources.synthetic.sensors.weather import Light, Pixels
from datasets.sources.synthetic.world.layout import (
    LANE_M,
    OTHER_FLAT,
    ROAD,
    SIDEWALK,
    TERRAIN,
    Ground,
    Layout,
    noise,
)

_WHITE, _YELLOW = np.float32(0.66), np.array([0.62, 0.46, 0.08], np.float32)
_ARM_M = (1.2, 4.2)  # where a crosswalk lies, from the edge of the street that it runs along


def _markings(layout: Layout, g: Ground, colour: Pixels, worn: NDArray[np.bool_]) -> None:
    """Lines, crosswalks and bays of every street, painted onto ``colour``."""
    for number, street in enumerate(layout.streets):
        a, s, cross = np.abs(g.d_m), g.s_m, g.cross_m
        of_street = (g.street == number) & (g.classes == ROAD) & (g.edge_m < -0.1)
        clear, lanes = of_street & (cross > 4.5), street.lanes * LANE_M
        inner = a - street.median_m
        lane = np.mod(inner + LANE_M / 2, LANE_M) - LANE_M / 2
        paint = (np.abs(lane) < 0.08) & (inner > 1) & (inner < lanes - 1) & (np.mod(s, 9.0) < 3.5)
        if street.parking:
            paint |= np.abs(inner - lanes) < 0.07
            paint |= (inner > lanes) & (np.mod(s, 6.0) < 0.12)
        else:
            paint |= np.abs(inner - lanes + 0.1) < 0.07
        paint &= clear
        if street.median_m == 0:
            yellow = clear & (a > 0.06) & (a < 0.2)
            if number > 0:
                yellow &= np.mod(s, 6.0) < 3.0
            colour[yellow & worn] = _YELLOW
        if street.joins_m:
            band = of_street & (cross > _ARM_M[0]) & (cross < _ARM_M[1])
            paint |= band & (np.mod(g.d_m, 1.2) < 0.6)
            joins = np.asarray(street.joins_m)
            nearest = joins[np.abs(s[:, None] - joins).argmin(axis=1)]
            before = (s - nearest) * g.d_m * layout.hand > 0
            paint |= of_street & (cross > 4.8) & (cross < 5.2) & before
        colour[paint & worn] = _WHITE


def ground_colour(layout: Layout, light: Light, p: Pixels) -> tuple[Pixels, NDArray[np.float32]]:
    """Albedo of ground points, and how much each mirrors (0..1)."""
    x, y = p[:, 0].astype(np.float64), p[:, 1].astype(np.float64)
    g = layout.ground(x, y)
    fine, broad = noise(x, y, 6.0), noise(x, y, 53.0)
    table = np.zeros((18, 3), np.float32)
    table[ROAD], table[TERRAIN] = light.asphalt, light.lawn
    table[SIDEWALK], table[OTHER_FLAT] = light.paving, (0.42, 0.3, 0.25)
    colour = table[g.classes] * (1 + 0.12 * fine + 0.16 * broad)[:, None]
    road = g.classes == ROAD
    # mended patches, tar seams and the darker tracks of tyres
    patch = road & (noise(x, y, 61.0) > 0.42)
    colour[patch] *= 0.78
    seam = road & (np.abs(noise(x, y, 57.0) - 0.12) < 0.012)
    colour[seam] *= 0.55
    tracks = road & (np.abs(np.mod(g.d_m, LANE_M / 2) - LANE_M / 4) < 0.3)
    colour[tracks] *= 0.94
    soft = g.classes == TERRAIN
    colour[soft] *= (1 + 0.32 * fine[soft] + 0.25 * broad[soft])[:, None]
    earth = soft & (noise(x, y, 67.0) > 0.38)
    colour[earth] = np.array([0.27, 0.21, 0.14], np.float32) * (1 + 0.3 * fine[earth])[:, None]
    tile = (0.6, 1.0, 1.5, 2.4)[int(layout.walk_m * 97) % 4]
    along = (np.mod(g.s_m, tile) < 0.07) | (np.mod(g.d_m, tile) < 0.07)
    colour[(g.classes == SIDEWALK) & along] *= 0.75
    brick = np.mod(np.floor(g.s_m / 0.8) + np.floor(g.d_m / 0.8), 2) > 0
    colour[(g.classes == OTHER_FLAT) & brick] *= 0.8
    colour[(g.edge_m > -0.02) & (g.edge_m < 0.22)] = 0.52 * (1 - 0.4 * light.wet)
    bays = road & (g.edge_m > layout.pavement_m) & (np.mod(g.s_m, 2.9) < 0.11)
    colour[bays & (fine > -0.3)] = 0.6
    _markings(layout, g, colour, fine > -0.45)
    puddle = np.clip(0.35 + 1.6 * noise(x, y, 47.0), 0, 1) * np.where(soft, 0.1, 1.0)
    return np.asarray(colour, np.float32), np.asarray(light.wet * puddle, np.float32)


# ---- facades -------------------------------------------------------------------------------------

_ANY = np.random.default_rng(20)
_N = 48
# by style: plaster, brick, boards, glass, shops, sheet metal; eight of each
_STOREY_M = np.repeat([3.1, 3.0, 2.9, 3.6, 4.2, 3.4], 8) * _ANY.uniform(0.92, 1.12, _N)
_BAY_M = np.repeat([2.4, 2.2, 2.8, 1.5, 3.4, 6.5], 8) * _ANY.uniform(0.75, 1.35, _N)
_WIDE = np.repeat([0.5, 0.45, 0.4, 0.9, 0.82, 0.25], 8) * _ANY.uniform(0.75, 1.1, _N)
_HIGH = np.repeat([0.5, 0.52, 0.45, 0.8, 0.68, 0.18], 8) * _ANY.uniform(0.75, 1.1, _N)
_SILL = np.repeat([0.28, 0.26, 0.3, 0.1, 0.08, 0.6], 8)
_BLIND = np.zeros(_N, bool)
_BLIND[[39, 40, 41, 42]] = True  # no windows at all


def _facade(
    style: NDArray[np.uint8], along: Pixels, z: Pixels, colour: Pixels, lamps: float
) -> tuple[Pixels, NDArray[np.bool_], Pixels]:
    """Wall colours, which points are panes, and how much light they give."""
    kind = style // 8
    storey, bay = _STOREY_M[style], _BAY_M[style]
    row, column = np.floor(z / storey), np.floor(along / bay)
    v, u = z / storey - row, np.abs(along / bay - column - 0.5) * 2
    has_window = ~_BLIND[style]
    high, wide = _HIGH[style], _WIDE[style]
    pane = has_window & (u < wide) & (v > _SILL[style]) & (v < _SILL[style] + high)
    frame = (
        has_window
        & ~pane
        & (u < wide + 0.1)
        & (v > _SILL[style] - 0.05)
        & (v < _SILL[style] + high + 0.05)
    )
    bricks = (kind == 1) & ((np.mod(z, 0.25) < 0.05) | (noise(along, z, 2.5) > 0.35))
    colour[bricks] *= 0.82
    lines = (kind == 2) & (np.mod(z, 0.24) < 0.05)
    lines |= (kind == 5) & (np.mod(along, 0.5) < 0.16)
    lines |= (kind == 0) & (np.mod(z, storey) < 0.09)
    colour[lines] *= 0.72
    colour[frame] = colour[frame] * 0.4 + 0.34
    number = noise(column * 3.7 + style, row * 5.3, 31.0)
    colour[pane] = (
        np.array([0.07, 0.09, 0.12], np.float32) + 0.07 * np.clip(number[pane], -1, 1)[:, None]
    )
    curtain = pane & (number > 0.25) & (kind < 3)
    colour[curtain] = np.array([0.4, 0.38, 0.34], np.float32)
    glow = np.zeros((len(z), 3), np.float32)
    if lamps > 0:
        lit = pane & (noise(column * 9.1, row * 7.7 + style, 23.0) > np.where(kind == 4, -0.3, 0.2))
        glow[lit] = lamps * np.array([0.5, 0.38, 0.2], np.float32)
    return colour, pane, glow


def face_colour(
    moment: Moment, what: int, face: NDArray[np.int64], p: Pixels, n: Pixels, light: Light
) -> tuple[Pixels, NDArray[np.uint8], Pixels]:
    """Albedo, finish and glow of points on meshes."""
    mesh = moment.stage.mesh if what == STATIC else moment.mesh
    assert mesh is not None
    colour, finish = mesh.colours[face].copy(), mesh.finishes[face]
    glow = np.zeros_like(colour)
    lamp = finish == Finish.LAMP
    if light.lamps > 0 and lamp.any():
        glow[lamp] = colour[lamp] * (2.2 * light.lamps)
    if what == MOVING:
        return colour, finish, glow
    along, z = p[:, 0] * n[:, 1] - p[:, 1] * n[:, 0], p[:, 2]
    upright = np.abs(n[:, 2]) < 0.5
    u, v = np.where(upright, along, p[:, 0]), np.where(upright, z, p[:, 1])
    rough = np.where(finish == Finish.PAINT, 0.3, 1.0).astype(np.float32)
    colour *= (1 + rough * (0.16 * noise(u, v, 9.0) + 0.12 * noise(u, v, 41.0)))[:, None]
    boards = (finish == Finish.WOOD) & (np.mod(u, 0.25) < 0.05)
    colour[boards] *= 0.6
    tiles = (finish == Finish.ROOF) & (
        (np.mod(p[:, 0], 0.45) < 0.09) | (np.mod(p[:, 1], 0.45) < 0.09)
    )
    colour[tiles] *= 0.75
    wall = np.flatnonzero((finish == Finish.WALL) & upright)
    if len(wall):
        style = mesh.styles[face[wall]]
        colour[wall], pane, shine = _facade(style, along[wall], z[wall], colour[wall], light.lamps)
        glow[wall] += shine
        finish = finish.copy()
        finish[wall[pane]] = Finish.GLASS
    return colour, finish, glow
