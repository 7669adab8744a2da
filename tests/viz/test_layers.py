"""What is drawn of a frame: the voxels, points and lines of every layer, with their colors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from datasets.annotations import Box
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import from_yaw
from datasets.labels.store import FrameLabels, MaskBit
from datasets.taxonomy import IGNORE_ID, OCC3D_NUSCENES
from viz.render.layers import DIFFERENCE_COLORS, Difference, LayerSettings, RenderedLayers, draw
from viz.render.lines import ARROW_COLOR, CELL_COLOR, MAX_ARROWS, RING_COLOR
from viz.render.points import IN_FREE, IN_OCCUPIED
from viz.render.scene3d import ColoredLines
from viz.session.lidar_evidence import FINDING_COLORS, Finding, evidence_of
from viz.session.session import ReviewFrame

GRID = VoxelGrid(min_m=(-12.0, -12.0, -1.0), size_m=(0.5, 0.5, 0.5), shape=(48, 48, 8))
TAXONOMY = OCC3D_NUSCENES
FREE, CAR, ROAD = TAXONOMY.free_id, TAXONOMY.id_of("car"), TAXONOMY.id_of("driveable_surface")
TREE = TAXONOMY.id_of("vegetation")
OBSERVED = MaskBit.TRUSTED | MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE
LEVELS = (0.0, 0.5, 1.0)


def labels(semantics: np.ndarray, **changes: Any) -> FrameLabels:
    fields: dict[str, Any] = {
        "token": "t",
        "timestamp_us": 0,
        "T_global_grid": np.eye(4),
        "semantics": semantics,
        "confidence": np.ones(GRID.shape, np.uint8),
        "mask": np.full(GRID.shape, OBSERVED, np.uint8),
    }
    return FrameLabels(**(fields | changes))


def street() -> np.ndarray:
    semantics = np.full(GRID.shape, FREE, np.uint8)
    semantics[:, :, 1] = ROAD
    semantics[30:38, 20:24, 2:5] = CAR
    return semantics


def frame(**changes: Any) -> ReviewFrame:
    fields: dict[str, Any] = {
        "name": "store",
        "grid": GRID,
        "taxonomy": TAXONOMY,
        "levels": LEVELS,
        "scene_id": "s",
        "k": 0,
        "n_frames": 1,
        "labels": labels(street()),
    }
    return ReviewFrame(**(fields | changes))


def colors_of(drawn: RenderedLayers, voxel: tuple[int, int, int]) -> tuple[int, ...]:
    """Color of a drawn voxel's upper side, as it is before shading."""
    assert drawn.shown[voxel]
    return tuple(int(c) for c in drawn.color_table[drawn.ids[voxel]])


def line(drawn: RenderedLayers, name: str) -> ColoredLines:
    (found,) = [one for one in drawn.lines if one.name == name]
    return found


def test_classes_have_their_colors_counts_and_legend() -> None:
    drawn = draw(frame(), LayerSettings())
    assert drawn.counts[CAR] == 8 * 4 * 3 and drawn.counts[ROAD] == 48 * 48
    assert drawn.counts[TREE] == 0 and FREE not in drawn.counts
    assert colors_of(drawn, (32, 21, 3)) == TAXONOMY.colors[CAR]
    (row,) = [row for row in drawn.legend if row.name == "car"]
    assert (row.color, row.count) == (TAXONOMY.colors[CAR], 96)
    assert [m.name for m in drawn.meshes] == ["car", "driveable_surface", "ego"]
    assert [m.id for m in drawn.surface] == [CAR, ROAD]
    top = drawn.meshes[0].colors.max(axis=0)
    np.testing.assert_array_equal(top, TAXONOMY.colors[CAR])


def test_what_is_drawn_is_what_is_shown() -> None:
    """The surface meshes are those of the shown voxels: nothing else, nothing less."""
    drawn = draw(frame(), LayerSettings(height_m=(-0.4, 1.0)))
    z = np.concatenate([m.corners_m for m in drawn.surface])[..., 2]
    assert (z.min(), z.max()) == (-0.5, 1.0)
    assert drawn.counts[CAR] == 8 * 4 * 2


def test_mask_hides_what_it_does_not_have() -> None:
    mask = np.full(GRID.shape, MaskBit.LIDAR_OBSERVED, np.uint8)
    mask[:24] |= np.uint8(MaskBit.TRUSTED)
    one = frame(labels=labels(street(), mask=mask))
    n = {
        m: sum(draw(one, LayerSettings(mask=m)).counts.values())
        for m in ("trusted", "lidar", "camera")
    }
    assert n == {"trusted": 24 * 48, "lidar": 48 * 48 + 96, "camera": 0}


def test_class_filter_shows_only_its_classes() -> None:
    drawn = draw(frame(), LayerSettings(classes=frozenset({CAR})))
    assert drawn.counts[CAR] == 96 and drawn.counts[ROAD] == 0
    assert draw(frame(), LayerSettings(classes=frozenset())).surface == ()


def test_confidence_is_colored_by_level() -> None:
    confidence = np.ones(GRID.shape, np.uint8)
    confidence[30:38] = 2
    drawn = draw(
        frame(labels=labels(street(), confidence=confidence)), LayerSettings(color="confidence")
    )
    low, high = colors_of(drawn, (0, 0, 1)), colors_of(drawn, (32, 21, 3))
    assert high[0] > 230 and high[1] > 230 > low[0]  # yellow
    assert [(row.name, row.count) for row in drawn.legend] == [
        ("confidence 0", 0),
        ("confidence 0.5", 40 * 48),
        ("confidence 1", 8 * 48 + 96),
    ]
    assert drawn.counts[CAR] == 96


def test_labels_without_confidence_say_so() -> None:
    drawn = draw(frame(levels=()), LayerSettings(color="confidence"))
    assert "no confidence" in drawn.caption
    assert colors_of(drawn, (32, 21, 3)) == TAXONOMY.colors[CAR]


def test_each_object_has_a_color_of_its_own() -> None:
    instances = np.zeros(GRID.shape, np.uint16)
    instances[30:34, 20:24, 2:5], instances[34:38, 20:24, 2:5] = 7, 8
    drawn = draw(frame(labels=labels(street(), instances=instances)), LayerSettings(color="object"))
    first, second = colors_of(drawn, (31, 21, 3)), colors_of(drawn, (36, 21, 3))
    pale = colors_of(drawn, (0, 0, 1))
    assert len({first, second, pale}) == 3
    assert max(pale) - min(pale) < 10 < max(first) - min(first)
    assert drawn.caption.startswith("2 objects")
    assert drawn.counts[CAR] == 96
    many = np.arange(instances.size, dtype=np.uint16).reshape(GRID.shape)
    draw(frame(labels=labels(street(), instances=many)), LayerSettings(color="object"))


def test_labels_without_objects_say_so() -> None:
    drawn = draw(frame(), LayerSettings(color="object"))
    assert "not told apart" in drawn.caption
    assert colors_of(drawn, (32, 21, 3)) == TAXONOMY.colors[CAR]


@pytest.mark.parametrize(
    ("hits", "passes", "finding"),
    [
        (0, 0, Finding.UNSEEN),
        (5, 0, Finding.HIT),
        (5, 5, Finding.HIT),
        (5, 6, Finding.MOSTLY_PASSED),
        (0, 1, Finding.ONLY_PASSED),
        (255, 255, Finding.HIT),
    ],
)
def test_evidence_of_an_occupied_voxel(hits: int, passes: int, finding: Finding) -> None:
    rays = np.zeros((2, *GRID.shape), np.uint8)
    voxel = (32, 21, 3)
    rays[0][voxel], rays[1][voxel] = hits, passes
    one = frame(labels=labels(street(), hits=rays[0], passes=rays[1]))
    drawn = draw(one, LayerSettings(color="evidence"))
    assert colors_of(drawn, voxel) == FINDING_COLORS[finding]
    assert "of the store" in drawn.caption


def test_returns_in_free_space_are_shown_as_missed() -> None:
    rays = np.zeros((2, *GRID.shape), np.uint8)
    missed, passed, few = (5, 5, 5), (5, 9, 5), (9, 9, 5)
    rays[0][missed] = rays[0][passed] = 4
    rays[1][passed], rays[0][few] = 9, 1
    one = frame(labels=labels(street(), hits=rays[0], passes=rays[1]))
    drawn = draw(one, LayerSettings(color="evidence"))
    assert colors_of(drawn, missed) == FINDING_COLORS[Finding.MISSED]
    assert not drawn.shown[passed] and not drawn.shown[few]
    assert not draw(one, LayerSettings()).shown[missed]


def test_without_stored_evidence_the_frames_own_sweep_gives_it() -> None:
    points = np.array([[5.2, 0.2, 0.2], [-3.0, 0.2, 0.2]], np.float32)
    one = frame(points_m=points, lidar_m=np.array([0.0, 0.2, 0.2]))
    evidence = evidence_of(one)
    assert evidence is not None and not evidence.stored
    x, y, z = GRID.indices(points[0])
    assert evidence.hits[x, y, z] == 1 and evidence.hits.sum() == 2
    assert evidence.passes[x - 1, y, z] == 1 and evidence.passes[x + 1, y, z] == 0
    assert "key sweep" in draw(one, LayerSettings(color="evidence")).caption
    assert evidence_of(frame()) is None
    assert "neither" in draw(frame(), LayerSettings(color="evidence")).caption


def differing() -> tuple[np.ndarray, dict[Difference, tuple[int, int, int]]]:
    other = street()
    other[31, 21, 3] = TREE
    other[33, 21, 3] = FREE
    other[5, 5, 5] = CAR
    return other, {
        Difference.SAME: (30, 21, 3),
        Difference.OTHER_CLASS: (31, 21, 3),
        Difference.ONLY_LABELS: (33, 21, 3),
        Difference.ONLY_OTHER: (5, 5, 5),
    }


@pytest.mark.parametrize("beside", ["second", "truth"])
def test_difference_tells_same_other_class_and_only_one(beside: str) -> None:
    other, voxels = differing()
    drawn = draw(frame(**{beside: labels(other)}), LayerSettings(voxels="difference"))
    for kind, voxel in voxels.items():
        assert colors_of(drawn, voxel) == DIFFERENCE_COLORS[kind], kind
    n = [row.count for row in drawn.legend]
    assert n == [48 * 48 + 96 - 2, 1, 1, 1]
    assert ("second store" if beside == "second" else "ground truth") in drawn.caption


def test_difference_is_taken_to_the_second_store_where_there_are_both() -> None:
    other, _ = differing()
    both = frame(second=labels(street()), truth=labels(other))
    assert [row.count for row in draw(both, LayerSettings(voxels="difference")).legend][1:] == [
        0,
        0,
        0,
    ]


def test_difference_leaves_out_what_is_not_known() -> None:
    """Benchmarks write free where they mean unobserved; and IGNORE_ID has no class."""
    other, voxels = differing()
    mask = np.full(GRID.shape, OBSERVED, np.uint8)
    mask[voxels[Difference.ONLY_LABELS]] = 0
    other[voxels[Difference.OTHER_CLASS]] = IGNORE_ID
    drawn = draw(frame(truth=labels(other, mask=mask)), LayerSettings(voxels="difference"))
    assert not drawn.shown[voxels[Difference.ONLY_LABELS]]
    assert not drawn.shown[voxels[Difference.OTHER_CLASS]]
    untrusted = np.full(GRID.shape, OBSERVED, np.uint8)
    untrusted[voxels[Difference.ONLY_OTHER]] = 0
    one = frame(labels=labels(street(), mask=untrusted), truth=labels(other))
    assert not draw(one, LayerSettings(voxels="difference")).shown[voxels[Difference.ONLY_OTHER]]
    shown = draw(one, LayerSettings(voxels="difference", mask="all")).shown
    assert shown[voxels[Difference.ONLY_OTHER]]


def test_truth_and_second_store_are_drawn_in_place_of_the_labels() -> None:
    other, _ = differing()
    one = frame(truth=labels(other))
    assert draw(one, LayerSettings(voxels="truth")).counts[TREE] == 1
    second = draw(one, LayerSettings(voxels="second"))
    assert second.surface == () and "second store" in second.caption
    off = draw(one, LayerSettings(voxels="none"))
    assert off.surface == () and not off.shown.any()


def with_points() -> ReviewFrame:
    points = np.array([[5.2, -0.2, 0.2], [0.2, 0.2, 2.2], [0.2, 0.2, -0.2], [90, 0, 0]], np.float32)
    return frame(points_m=points)


def test_points_are_colored_by_what_is_asked() -> None:
    (by_class,) = draw(with_points(), LayerSettings(points="class")).points
    assert len(by_class.points_m) == 3  # one lies outside the grid
    assert tuple(by_class.colors[0]) == TAXONOMY.colors[CAR]
    assert tuple(by_class.colors[2]) == TAXONOMY.colors[ROAD]
    (hit,) = draw(with_points(), LayerSettings(points="hit")).points
    assert [tuple(c) for c in hit.colors] == [IN_OCCUPIED, IN_FREE, IN_OCCUPIED]
    (height,) = draw(with_points(), LayerSettings(points="height")).points
    assert height.colors[2, 2] > height.colors[1, 2]  # low is bluer
    (clipped,) = draw(with_points(), LayerSettings(points="hit", height_m=(0.0, 1.0))).points
    np.testing.assert_array_equal(clipped.points_m, np.array([[5.2, -0.2, 0.2]], np.float32))
    assert draw(with_points(), LayerSettings(points="off")).points == ()
    assert draw(frame(), LayerSettings(points="hit")).points == ()


def test_arrows_stand_on_what_moves_and_are_a_second_long() -> None:
    flow = np.zeros((*GRID.shape, 2), np.float16)
    flow[30:38, 20:24] = (3.0, -1.0)  # free voxels too: only shown ones count
    arrows = line(draw(frame(labels=labels(street(), flow=flow)), LayerSettings(flow=True)), "flow")
    assert len(arrows.ends_m) == 3 * 4 * 2  # a shaft and two barbs each, one a square metre
    shafts = arrows.ends_m[: 4 * 2].astype(np.float64)
    np.testing.assert_allclose(shafts[:, 1] - shafts[:, 0], [[3, -1, 0]] * 8, atol=1e-5)
    np.testing.assert_allclose(shafts[:, 0, 2], 1.75)  # above the car's roof layer's centre
    assert sorted({*shafts[:, 0, 0]}) == [3.5, 4.5, 5.5, 6.5]
    assert (arrows.colors == ARROW_COLOR).all()
    assert "no flow" in draw(frame(), LayerSettings(flow=True)).caption


def test_many_arrows_are_thinned_and_slow_ones_left_out() -> None:
    flow = np.full((*GRID.shape, 2), 2.0, np.float16)
    one = frame(labels=labels(street(), flow=flow))
    arrows = line(draw(one, LayerSettings(flow=True)), "flow")
    assert 200 < len(arrows.ends_m) / 3 <= MAX_ARROWS < 24 * 24
    slow = frame(labels=labels(street(), flow=flow * np.float16(0.01)))
    assert [one.name for one in draw(slow, LayerSettings(flow=True)).lines] == ["range rings"]


def test_boxes_have_twelve_edges_at_their_corners() -> None:
    box = Box(
        track="a", class_id=CAR, T_ego_box=from_yaw(np.pi / 2, (5, 0, 1)), size_m=(4.0, 2.0, 1.0)
    )
    drawn = draw(frame(boxes=(box,), box_taxonomy=TAXONOMY), LayerSettings(boxes=True))
    edges = line(drawn, "boxes").ends_m[:12]
    corners = np.unique(edges.reshape(-1, 3).round(4), axis=0)
    assert len(corners) == 8
    np.testing.assert_allclose(corners.min(axis=0), [4, -2, 0.5], atol=1e-4)
    np.testing.assert_allclose(corners.max(axis=0), [6, 2, 1.5], atol=1e-4)
    lengths = np.linalg.norm(edges[:, 0] - edges[:, 1], axis=1)
    assert sorted(lengths.round(3)) == [1] * 4 + [2] * 4 + [4] * 4
    assert "no boxes" in draw(frame(), LayerSettings(boxes=True)).caption


def test_rings_are_ten_metres_apart_inside_the_grid_over_the_road() -> None:
    rings = line(draw(frame(), LayerSettings()), "range rings")
    radius = np.linalg.norm(rings.ends_m[..., :2], axis=-1)
    np.testing.assert_allclose(radius, 10.0, rtol=1e-5)
    assert (rings.ends_m[..., 2] > 0.0).all() and (rings.ends_m[..., 2] < 0.5).all()
    assert (rings.colors == RING_COLOR).all()
    assert draw(frame(), LayerSettings(rings=False)).lines == ()


def test_picked_voxel_is_outlined() -> None:
    outline = line(draw(frame(), LayerSettings(cell=(32, 21, 3))), "picked voxel")
    edges = outline.ends_m[:12].reshape(-1, 3)
    centre = GRID.centers(np.array([32, 21, 3]))
    np.testing.assert_allclose((edges.min(axis=0) + edges.max(axis=0)) / 2, centre, atol=1e-5)
    assert (np.ptp(edges, axis=0) > 0.5).all() and (np.ptp(edges, axis=0) < 0.6).all()
    assert (outline.colors == CELL_COLOR).all()


def test_drawing_changes_nothing() -> None:
    other, _ = differing()
    rays = np.ones((2, *GRID.shape), np.uint8)
    one = replace(
        with_points(),
        labels=labels(street(), hits=rays[0], passes=rays[1]),
        truth=labels(other),
        lidar_m=np.zeros(3),
    )
    for array in (one.labels.semantics, one.labels.mask, one.labels.confidence, rays, other):
        array.flags.writeable = False
    for show in (
        LayerSettings(),
        LayerSettings(color="evidence"),
        LayerSettings(voxels="difference", height_m=(0, 2)),
    ):
        a, b = draw(one, show), draw(one, show)
        assert a.caption == b.caption and a.counts == b.counts
        assert all(
            x.corners_m.tobytes() == y.corners_m.tobytes()
            for x, y in zip(a.meshes, b.meshes, strict=True)
        )


@pytest.mark.parametrize("changes", [{"mask": "wrong"}, {"height_m": (1.0, 1.0)}])
def test_show_that_means_nothing_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"wrong|order"):
        LayerSettings(**changes)
