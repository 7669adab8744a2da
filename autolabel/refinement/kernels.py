"""The loops of temporal fusion over voxels and returns, compiled; they write to their last
arguments.

Legend: P LiDAR returns, V voxels, X Y Z axes of the grid, K classes, B bins of LiDAR evidence.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from datasets.geometry.compiled import compiled

SURFACE = 4
"""Numbers about the returns in a voxel."""


@compiled
def add_returns(ends: Any, intensity: Any, low: Any, size: Any, shape: Any, sums: Any) -> None:
    """Add returns (P, 3) and (P,) to each voxel's (``SURFACE``) sums: returns, intensity, height
    within the voxel (-0.5..0.5 of its side) and its square."""
    X, Y, Z = shape
    for p in range(len(ends)):
        x, y, z = (ends[p, 0] - low[0], ends[p, 1] - low[1], ends[p, 2] - low[2])
        i, j = int(np.floor(x / size[0])), int(np.floor(y / size[1]))
        level = z / size[2]
        k = int(np.floor(level))
        if i < 0 or j < 0 or k < 0 or i >= X or j >= Y or k >= Z:
            continue
        v = (i * Y + j) * Z + k
        height = np.float32(level - k - 0.5)
        sums[v, 0] += 1
        sums[v, 1] += min(max(intensity[p], np.float32(0)), np.float32(255))
        sums[v, 2] += height
        sums[v, 3] += height * height


@compiled
def to_surface(cells: Any, sums: Any, surface: Any) -> None:
    """Numbers about one in size, (V, 2 * ``SURFACE``), of sums (2, X * Y * Z, ``SURFACE``): logs of
    the returns and of their mean intensity, mean height in the voxel and its standard deviation; 0
    without returns. A road returns little, and grass little more: a log tells them apart."""
    for v in range(len(cells)):
        for part in range(2):
            n, intensity, height, square = sums[part, cells[v]]
            out = surface[v, part * SURFACE : (part + 1) * SURFACE]
            if n == 0:
                out[:] = 0
                continue
            height /= n
            out[0] = np.log1p(n) / 2
            out[1] = 2 * (np.log1p(intensity / n) - 2)
            out[2] = 4 * height
            out[3] = 4 * np.sqrt(max(square / n - height * height, np.float32(0)))


@compiled
def take_own(
    cells: Any, surprisal: Any, dynamic: Any, step: Any, logs: Any, is_dynamic: Any
) -> None:
    """Log probabilities (V, K) of cells (V,), and whether a ``dynamic`` class is the likeliest.

    ``surprisal`` (X * Y * Z, K) uint8 is in steps of the log probability ``step``.
    """
    n_classes = surprisal.shape[1]
    for v in range(len(cells)):
        row = surprisal[cells[v]]
        best = 0
        for c in range(n_classes):
            logs[v, c] = np.float32(row[c]) * step
            if row[c] < row[best]:
                best = c
        is_dynamic[v] = dynamic[best]


@compiled
def add_surprisal(
    cells: Any,
    matrix: Any,
    offset: Any,
    surprisal: Any,
    moving: Any,
    lidar: Any,
    observed_weight: Any,
    slots: Any,
    shifts: Any,
    total: Any,
    weight: Any,
) -> None:
    """Add another frame's surprisal (X, Y, Z, K) at the places of our cells (V,), which ``matrix``
    and ``offset`` take to its indices; not where it predicts a moving class. Where its LiDAR's hits
    or passes, ``lidar``, are any, it counts ``observed_weight`` times. Cells of an object, in
    ``slots`` (V,) not 0, take what lies beside their place by the object's shift, of ``shifts``
    (N + 1, 3), if it is known."""
    hits, passes = lidar
    X, Y, Z, K = surprisal.shape
    for v in range(len(cells)):
        z = cells[v] % Z
        y = cells[v] // Z % Y
        x = cells[v] // (Z * Y)
        a = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + offset[0]
        b = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + offset[1]
        c = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + offset[2]
        slot = slots[v]
        known = not np.isnan(shifts[slot, 0])
        if known:
            a, b, c = a + shifts[slot, 0], b + shifts[slot, 1], c + shifts[slot, 2]
        i, j, k = int(np.floor(a)), int(np.floor(b)), int(np.floor(c))
        if i < 0 or j < 0 or k < 0 or i >= X or j >= Y or k >= Z:
            continue
        if moving[i, j, k] and not known:
            continue
        w = np.float32(1)
        if hits[i, j, k] or passes[i, j, k]:
            w = observed_weight
        weight[v] += w
        for n in range(K):
            total[v, n] += w * np.float32(surprisal[i, j, k, n])


@compiled
def to_mean(total: Any, weight: Any, step: Any, fallback: Any) -> None:
    """Make sums (V, K) of surprisal mean log probabilities; ``fallback`` where none were added."""
    for v in range(len(weight)):
        if weight[v] == 0:
            total[v] = fallback[v]
            continue
        factor = step / weight[v]
        for c in range(total.shape[1]):
            total[v, c] *= factor


@compiled
def weigh(
    logs: Any,
    self_only: Any,
    bins: Any,
    weights: Any,
    own_evidence: Any,
    other_evidence: Any,
    logits: Any,
) -> None:
    """Logits (V, K) of a log-linear pool.

    ``logs``: own, near and far ones' (V, K); ``bins``: own and others' (V,); ``weights`` of these
    three, and of the own where it stands alone, ``self_only`` (V,); both tables (B, K).
    """
    own, near, far = logs
    own_bin, other_bin = bins
    K = logits.shape[1]
    for v in range(len(logits)):
        mine, theirs = own_evidence[own_bin[v]], other_evidence[other_bin[v]]
        if self_only[v]:
            for c in range(K):
                logits[v, c] = weights[3] * own[v, c] + mine[c]
        else:
            for c in range(K):
                pooled = weights[0] * own[v, c] + weights[1] * near[v, c] + weights[2] * far[v, c]
                logits[v, c] = pooled + mine[c] + theirs[c]


@compiled
def count_met(
    cells: Any,
    slots: Any,
    matrix: Any,
    offset: Any,
    shifts: Any,
    numbers: Any,
    number_of: Any,
    met: Any,
) -> None:
    """Count for each object those of its cells (V, 3) that, taken to another frame and shifted, lie
    in a voxel of the number ``number_of`` (N + 1,) it."""
    X, Y, Z = numbers.shape
    for v in range(len(cells)):
        x, y, z = cells[v]
        slot = slots[v]
        a = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + offset[0] + shifts[slot, 0]
        b = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + offset[1] + shifts[slot, 1]
        c = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + offset[2] + shifts[slot, 2]
        i, j, k = int(np.floor(a)), int(np.floor(b)), int(np.floor(c))
        if i < 0 or j < 0 or k < 0 or i >= X or j >= Y or k >= Z:
            continue
        if numbers[i, j, k] == number_of[slot]:
            met[slot] += 1
