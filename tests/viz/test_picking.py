"""Clicks: from a ray or a pixel to a voxel, from a voxel to the pictures and to what is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.errors import SceneError
from datasets.frames import CameraView
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import from_yaw
from datasets.labels.label_set import LabelSetHeader
from datasets.labels.store import FrameLabels, MaskBit
from datasets.taxonomy import IGNORE_ID, OCC3D_NUSCENES
from viz.render.camera_overlay import NO_ID, pinhole_of, project_labels
from viz.render.layers import LayerSettings, draw
from viz.render.voxel_mesh import surface_meshes
from viz.review.voxel_description import history_words
from viz.session.picking import (
    Moment,
    box_cells,
    camera_pixel,
    component,
    describe,
    in_cameras,
    voxel_at,
    voxel_of_pixel,
)
from viz.session.session import CameraImage, ReviewFrame, ReviewSession

GRID = VoxelGrid(min_m=(-10.0, -10.0, -1.0), size_m=(0.5, 0.4, 0.25), shape=(40, 50, 16))
TAXONOMY = OCC3D_NUSCENES
FREE, CAR, ROAD = TAXONOMY.free_id, TAXONOMY.id_of("car"), TAXONOMY.id_of("driveable_surface")
LEVELS = (0.0, 0.5, 1.0)
# looks nearly along +X of the grid's frame, from 1 m up, a little to the left
T_GRID_CAMERA = from_yaw(0.17, (0.5, -0.3, 1.0)) @ np.array(
    [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)


def view(name: str = "CAM_FRONT") -> CameraView:
    return CameraView(
        name=name,
        path=Path("nowhere.jpg"),
        timestamp_us=0,
        width=120,
        height=80,
        intrinsics=np.array([[70.0, 0.0, 61.3], [0.0, 66.0, 38.2], [0.0, 0.0, 1.0]]),
        T_ego_camera=T_GRID_CAMERA,
    )


def labels(semantics: np.ndarray, **changes: Any) -> FrameLabels:
    fields: dict[str, Any] = {
        "token": "t",
        "timestamp_us": 0,
        "T_global_grid": np.eye(4),
        "semantics": semantics,
        "confidence": np.ones(semantics.shape, np.uint8),
        "mask": np.full(semantics.shape, MaskBit.TRUSTED, np.uint8),
    }
    return FrameLabels(**(fields | changes))


def frame(semantics: np.ndarray, **changes: Any) -> ReviewFrame:
    rgb = np.zeros((80, 120, 3), np.uint8)
    fields: dict[str, Any] = {
        "name": "store",
        "grid": GRID,
        "taxonomy": TAXONOMY,
        "levels": LEVELS,
        "scene_id": "s",
        "k": 0,
        "n_frames": 1,
        "labels": labels(semantics),
        "images": (CameraImage(view=view(), rgb=rgb),),
    }
    return ReviewFrame(**(fields | changes))


def scattered(seed: int = 0, share: float = 0.03) -> np.ndarray:
    rng = np.random.default_rng(seed)
    semantics = np.where(rng.random(GRID.shape) < share, CAR, FREE).astype(np.uint8)
    semantics[18:24, 20:30] = FREE  # room for the camera
    return semantics


def nearest_by_boxes(
    shown: np.ndarray, eye: np.ndarray, direction: np.ndarray
) -> tuple[tuple[int, ...] | None, float]:
    """Brute force: the ray against every shown voxel's box (slab method), and by how much the
    nearest is nearer than the next."""
    cells = np.argwhere(shown)
    low = cells * np.array(GRID.size_m) + GRID.min_m
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (low - eye) / direction, (low + GRID.size_m - eye) / direction
    enter, leave = np.minimum(a, b).max(axis=1), np.maximum(a, b).min(axis=1)
    enter = np.where((enter <= leave) & (leave > 0), np.maximum(enter, 0), np.inf)
    order = np.argsort(enter)
    if not np.isfinite(enter[order[0]]):
        return None, np.inf
    return tuple(int(i) for i in cells[order[0]]), float(enter[order[1]] - enter[order[0]])


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_ray_finds_the_voxel_that_the_nearest_box_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = frame(scattered())
    shown = one.labels.semantics != FREE
    eye = rng.uniform([-14, -14, 0], [14, 14, 8])
    direction = rng.uniform([-8, -8, -1], [8, 8, 2]) - eye
    expected, margin = nearest_by_boxes(shown, eye, direction)
    if margin > 1e-6:  # of a ray along an edge either voxel may be told
        assert voxel_at(one, shown, eye, direction) == expected


def test_ray_that_meets_nothing_finds_nothing() -> None:
    one = frame(scattered())
    shown = one.labels.semantics != FREE
    up = np.array([0.0, 0.0, 1.0])
    assert voxel_at(one, shown, np.array([0.0, 0.0, 50.0]), up) is None
    nothing = np.zeros(GRID.shape, bool)
    assert voxel_at(one, nothing, np.array([0.0, 0.0, 50.0]), -up) is None
    assert voxel_at(one, shown, np.array([99.0, 0.0, 0.0]), up) is None


def test_pixel_sees_the_voxel_that_the_overlay_draws_there() -> None:
    one = frame(scattered())
    shown = one.labels.semantics != FREE
    index = np.cumsum(shown).reshape(shown.shape)  # every voxel its own id
    ids = (index % 251).astype(np.uint8)
    picture = project_labels(surface_meshes(ids, shown, GRID), pinhole_of(view()))
    seen = differ = 0
    for v in range(0, 80, 3):
        for u in range(0, 120, 3):
            cell = voxel_of_pixel(one, shown, view(), u, v)
            drawn = picture.ids[v, u]
            seen += drawn != NO_ID
            differ += drawn != (NO_ID if cell is None else ids[cell])
    assert seen > 400
    assert differ <= 0.01 * seen  # pixels on an edge


def test_voxel_is_marked_where_the_overlay_draws_it() -> None:
    cell = (30, 25, 9)
    semantics = np.full(GRID.shape, FREE, np.uint8)
    semantics[cell] = CAR
    one = frame(semantics)
    (place,) = in_cameras(one, semantics != FREE, cell)
    picture = project_labels(surface_meshes(semantics, semantics != FREE, GRID), pinhole_of(view()))
    rows, columns = np.nonzero(picture.ids == CAR)
    assert columns.min() <= place.u <= columns.max() and rows.min() <= place.v <= rows.max()
    assert not place.hidden
    assert voxel_of_pixel(one, semantics != FREE, view(), place.u, place.v) == cell


def test_hidden_voxel_says_so() -> None:
    semantics = np.full(GRID.shape, FREE, np.uint8)
    cell = (34, 25, 9)
    semantics[cell] = CAR
    one = frame(semantics)
    assert [p.hidden for p in in_cameras(one, semantics != FREE, cell)] == [False]
    semantics[30, 15:35] = ROAD  # a wall
    assert [p.hidden for p in in_cameras(one, semantics != FREE, cell)] == [True]
    semantics[30, 25] = FREE  # with a gap
    assert [p.hidden for p in in_cameras(one, semantics != FREE, cell)] == [False]


def test_what_a_camera_does_not_have_is_not_marked() -> None:
    behind, aside = np.array([-5.0, 0.0, 1.0]), np.array([1.0, 9.0, 1.0])
    assert camera_pixel(view(), behind) is None and camera_pixel(view(), aside) is None
    ahead = camera_pixel(view(), view().T_ego_camera[:3, 3] + 5 * view().T_ego_camera[:3, 2])
    assert ahead == pytest.approx((61.3, 38.2))
    one = frame(np.full(GRID.shape, CAR, np.uint8))
    assert in_cameras(one, np.ones(GRID.shape, bool), (0, 25, 8)) == ()


def test_component_is_what_touches_by_faces_edges_or_corners() -> None:
    semantics = np.full(GRID.shape, FREE, np.uint8)
    chain = [(5, 5, 5), (6, 6, 6), (6, 7, 6), (7, 7, 5)]
    for cell in chain:
        semantics[cell] = CAR
    semantics[7, 8, 5] = ROAD  # touches, another class
    semantics[10, 7, 5] = CAR  # the same class, does not touch
    one = frame(semantics)
    found = component(one, (6, 6, 6))
    assert found.dtype == np.int64
    assert [tuple(c) for c in np.argwhere(np.isin(index_of_all(), found))] == chain
    within = np.ones(GRID.shape, bool)
    within[6, 7, 6] = False
    inside = component(one, (6, 6, 6), within=within)
    still = [chain[0], chain[1], chain[3]]
    assert [tuple(c) for c in np.argwhere(np.isin(index_of_all(), inside))] == still


def index_of_all() -> np.ndarray:
    return np.arange(GRID.n_voxels).reshape(GRID.shape)


def test_box_holds_both_its_corners_and_nothing_outside_the_grid() -> None:
    one = frame(scattered())
    found = box_cells(one, (3, 9, 2), (1, 8, 4))
    np.testing.assert_array_equal(found, index_of_all()[1:4, 8:10, 2:5].ravel())
    corner = box_cells(one, (-5, -5, -5), (0, 1, 0))
    np.testing.assert_array_equal(corner, index_of_all()[0:1, 0:2, 0:1].ravel())
    assert box_cells(one, (50, 0, 0), (60, 5, 5)).size == 0


class Drive:
    """A set of labels of one scene: the car stands in the world, the ego drives 1 m a frame."""

    header = LabelSetHeader(
        what="drive", name="drive", grid=GRID, taxonomy=TAXONOMY, frame="ego", levels=LEVELS
    )

    def __init__(self, n: int, unreadable: int | None = None) -> None:
        self.n, self.unreadable = n, unreadable
        self.frame_tokens = tuple(f"t{k}" for k in range(n))

    def scene_ids(self) -> tuple[str, ...]:
        return ("s",)

    def first_scene(self) -> str:
        return "s"

    def scene(self, scene_id: str) -> Any:
        return _Scene(self)


class _Scene:
    def __init__(self, drive: Drive) -> None:
        self.drive, self.frame_tokens = drive, drive.frame_tokens

    def __len__(self) -> int:
        return self.drive.n

    def frame(self, k: int) -> FrameLabels:
        if k == self.drive.unreadable:
            raise SceneError(where="here", rule="damaged")
        semantics = np.full(GRID.shape, FREE, np.uint8)
        # at x = 5.25 m and y = 2.2 m of frame 0's grid
        T = from_yaw(0.0, (float(k), 0.0, 0.0))
        x = round((5.0 - k - GRID.min_m[0]) / 0.5)
        if 0 <= x < GRID.shape[0]:
            semantics[x, 30, 8] = CAR if k % 2 == 0 else ROAD
        confidence = np.full(GRID.shape, 2 if k % 2 == 0 else 1, np.uint8)
        token = self.drive.frame_tokens[k]
        return labels(semantics, token=token, T_global_grid=T, confidence=confidence)


def test_history_follows_the_same_place_of_the_world() -> None:
    session = ReviewSession(Drive(30), "no log")
    one = session.frame("s", 4)
    cell = (22, 30, 8)
    assert one.labels.semantics[cell] == CAR
    facts = describe(session, one, cell)
    assert facts.history == tuple(
        (k, CAR if k % 2 == 0 else ROAD, 1.0 if k % 2 == 0 else 0.5) for k in range(15)
    )
    assert (facts.class_name, facts.confidence, facts.second_choice) == ("car", 1.0, "not stored")
    assert facts.bits == MaskBit.TRUSTED
    assert (facts.hits, facts.truth, facts.other, facts.flow_mps) == (None, None, None, None)
    # at frame 16 the car has left the grid
    later = describe(session, session.frame("s", 14), (2, 30, 8))
    assert [moment.k for moment in later.history] == list(range(4, 16))


def test_frame_that_cannot_be_read_is_left_out_of_the_history() -> None:
    session = ReviewSession(Drive(6, unreadable=3), "no log")
    facts = describe(session, session.frame("s", 2), (26, 30, 8))
    assert [moment.k for moment in facts.history] == [0, 1, 2, 4, 5]


def test_facts_tell_evidence_truth_and_the_second_store() -> None:
    rays = np.zeros((2, *GRID.shape), np.uint8)
    cell = (30, 25, 9)
    rays[0][cell], rays[1][cell] = 7, 200
    semantics, flow = scattered(), np.zeros((*GRID.shape, 2), np.float16)
    semantics[cell], flow[cell] = CAR, (1.5, -2.0)
    truth, other = semantics.copy(), semantics.copy()
    truth[cell], other[cell] = ROAD, IGNORE_ID
    one = frame(
        semantics,
        labels=labels(semantics, hits=rays[0], passes=rays[1], flow=flow),
        truth=labels(truth),
        second=labels(other),
    )
    facts = describe(ReviewSession(Drive(1), ""), one, cell)
    assert (facts.hits, facts.passes, facts.evidence_stored) == (7, 200, True)
    assert (facts.truth, facts.other, facts.flow_mps) == (ROAD, IGNORE_ID, (1.5, -2.0))
    np.testing.assert_allclose(facts.centre_m, GRID.centers(np.array(cell)))
    with pytest.raises(IndexError, match="40"):
        describe(ReviewSession(Drive(1), ""), one, (40, 0, 0))


def test_click_goes_through_what_is_not_drawn() -> None:
    semantics = np.full(GRID.shape, FREE, np.uint8)
    semantics[:, :, 2], semantics[10:30, 10:40, 6] = ROAD, CAR
    one = frame(semantics)
    eye, down = np.array([0.1, 0.1, 9.0]), np.array([0.0, 0.0, -1.0])
    for classes, layer in ((None, 6), (frozenset({ROAD}), 2), (frozenset({CAR}), 6)):
        assert voxel_at(one, draw(one, LayerSettings(classes=classes)).shown, eye, down) == (
            20,
            25,
            layer,
        )


def test_history_in_words_has_a_gap_where_the_place_was_out_of_sight() -> None:
    road, car = TAXONOMY.id_of("driveable_surface"), TAXONOMY.id_of("car")
    said = [(0, road), (1, road), (4, road), (5, car)]
    history = [Moment(k=k, class_id=class_id, confidence=None) for k, class_id in said]
    words = "0-1 driveable surface, 4 driveable surface, 5 car"
    assert history_words(history, TAXONOMY) == words
