"""What the review window promises without a display: keys, frames, verdicts, selections, jobs."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datasets.geometry.grid import VoxelGrid
from datasets.labels.label_set import StoredLabels
from datasets.labels.store import LabelStore, MaskBit, SceneLabels, StoreHeader
from datasets.reviews.overlay import EditEntry, Reviews, Verdict
from datasets.taxonomy import IGNORE_ID, OCC3D_NUSCENES
from viz.render.layers import LayerSettings
from viz.render.merged_faces import BLOCK, merged_faces
from viz.render.voxel_mesh import surface_meshes
from viz.review.actions import perform
from viz.review.controller import VERDICTS, ReviewController, estimate_rows
from viz.review.keys import KEEP_VIEWS, SECTIONS, VIEWS, Action, action_of, key_of
from viz.review.review_queue import QueueItem
from viz.review.shared_review import SharedReview
from viz.review.state import Available, ReviewState
from viz.review.writer import BackgroundWriter
from viz.session.session import ReviewSession
from viz.window.layout import window_layout
from viz.window.render_jobs import MadeSelection, MadeView, WantedJobs, make, wanted_jobs
from viz.window.render_worker import LatestWorker
from viz.window.saved_views import View, read_views, write_views
from viz.window.scene_view import faces_down, ray_of

GRID = VoxelGrid(min_m=(-10.0, -10.0, -1.0), size_m=(0.5, 0.5, 0.5), shape=(40, 40, 8))
FREE, CAR = OCC3D_NUSCENES.free_id, OCC3D_NUSCENES.id_of("car")
ROAD, TREE = OCC3D_NUSCENES.id_of("driveable_surface"), OCC3D_NUSCENES.id_of("vegetation")
TOKENS = {"scene-a": ("a0", "a1", "a2", "a3"), "scene-b": ("b0", "b1")}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "labels.zarr"
    header = StoreHeader(
        grid=GRID,
        taxonomy=OCC3D_NUSCENES,
        levels=(0.0, 0.5, 1.0),
        licence="none",
        provenance={},
        run_id="test",
    )
    made = LabelStore.create(path, header)
    semantics = np.full(GRID.shape, FREE, np.uint8)
    semantics[:, :, 1] = ROAD
    semantics[26:32, 18:22, 2:5] = CAR
    for scene_id, tokens in TOKENS.items():
        T = len(tokens)
        made.write_scene(
            SceneLabels(
                scene_id=scene_id,
                frame_tokens=tokens,
                timestamps_us=np.arange(T),
                T_global_grid=np.stack([np.eye(4)] * T),
                semantics=np.stack([semantics] * T),
                confidence=np.full((T, *GRID.shape), 2, np.uint8),
                mask=np.full((T, *GRID.shape), MaskBit.TRUSTED, np.uint8),
            )
        )
    return path


def state(**change: object) -> ReviewState:
    made = ReviewState(
        grid=GRID,
        taxonomy=OCC3D_NUSCENES,
        tokens=TOKENS,
        scene_id="scene-a",
        k=0,
        show=LayerSettings(),
    )
    for name, value in change.items():
        setattr(made, name, value)
    return made


def item(scene_id: str, k: int, *, sampled: bool = False) -> QueueItem:
    return QueueItem(scene_id=scene_id, k=k, token=TOKENS[scene_id][k], why="test", sampled=sampled)


def test_every_action_has_one_key_and_every_key_one_action() -> None:
    bindings = [binding for part in SECTIONS.values() for binding in part]
    assert Counter(b.action for b in bindings) == dict.fromkeys(Action, 1)
    assert max(Counter((b.key, b.shift) for b in bindings).values()) == 1
    assert all(action_of(b.key, shift=b.shift) is b.action for b in bindings)


def test_every_action_changes_the_state_or_is_the_windows() -> None:
    windows = {
        *VIEWS,
        *KEEP_VIEWS,
        *VERDICTS,
        Action.HOME_VIEW,
        Action.TOP_VIEW,
        Action.NOTE,
        Action.UNDO,
        Action.APPLY,
        Action.QUIT,
    }
    assert {action for action in Action if not perform(state(), action)} == windows


def test_keys_are_read_with_and_without_shift() -> None:
    assert action_of("RIGHT") is action_of("right", shift=True) is Action.NEXT_FRAME
    assert action_of("one", shift=True) is Action.KEEP_VIEW_1
    assert action_of("f12") is None and key_of(Action.KEEP_VIEW_1) == "Shift 1"


def test_frames_stop_at_the_ends_of_a_scene_and_scenes_at_the_ends_of_the_store() -> None:
    one = state()
    perform(one, Action.PREVIOUS_FRAME)
    assert one.k == 0
    for _ in range(9):
        perform(one, Action.NEXT_FRAME)
    assert one.k == 3
    perform(one, Action.NEXT_SCENE)
    perform(one, Action.NEXT_SCENE)
    assert (one.scene_id, one.k) == ("scene-b", 0)
    assert one.ahead() == (("scene-b", 1),)


def test_another_frame_drops_the_selection_and_another_scene_the_range() -> None:
    one = state(tool="box")
    one.pick((1, 2, 3))
    perform(one, Action.MARK)
    perform(one, Action.NEXT_FRAME)
    assert one.corners == () and one.show.cell is None
    assert list(one.frames) == [0, 1]
    perform(one, Action.NEXT_SCENE)
    assert list(one.frames) == [0]


def test_a_verdict_is_on_the_marked_range_and_goes_on_behind_it() -> None:
    one = state(k=2)
    perform(one, Action.MARK)
    perform(one, Action.PREVIOUS_FRAME)
    (judgement,) = one.verdict_entries(Verdict.REJECT)
    assert judgement.tokens == ("a1", "a2") and judgement.verdict is Verdict.REJECT
    one.move_on()
    assert (one.k, one.marked) == (3, None)


def test_what_the_queue_drew_by_chance_is_judged_apart() -> None:
    one = state(queue=(item("scene-a", 1, sampled=True),))
    perform(one, Action.MARK)
    one.go("scene-a", 2)
    judged = {j.sampled: j.tokens for j in one.verdict_entries(Verdict.ACCEPT)}
    assert judged == {False: ("a0", "a2"), True: ("a1",)}


def test_the_queue_leads_from_item_to_item_and_skips_what_is_judged() -> None:
    one = state(queue=(item("scene-b", 1), item("scene-a", 2), item("scene-a", 3)))
    perform(one, Action.NEXT_IN_QUEUE)
    assert (one.scene_id, one.k) == ("scene-b", 1)
    one.judged.add(("scene-a", "a2"))
    one.move_on()
    assert (one.scene_id, one.k) == ("scene-a", 3)
    one.move_on()
    assert one.message == "the queue is done"
    perform(one, Action.PREVIOUS_IN_QUEUE)
    assert (one.scene_id, one.k) == ("scene-a", 2)


def test_a_class_is_hidden_and_shown_again() -> None:
    one = state(class_id=CAR)
    perform(one, Action.HIDE_CLASS)
    assert one.show.classes == frozenset(OCC3D_NUSCENES.semantic_ids) - {CAR}
    perform(one, Action.HIDE_CLASS)
    assert one.show.classes is None


def test_classes_at_hand_go_round_past_free_space_and_ignore() -> None:
    one, seen = state(), []
    for _ in one.paint_ids():
        perform(one, Action.NEXT_CLASS)
        seen.append(one.class_id)
    assert set(seen) == {*range(18), IGNORE_ID} and len(seen) == 19


def test_the_height_clip_stays_inside_the_grid_and_never_turns_over() -> None:
    one = state()
    perform(one, Action.TOP_DOWN)
    assert one.show.height_m == (-1.0, 2.5)
    for _ in range(20):
        perform(one, Action.TOP_DOWN)
    assert one.show.height_m == (-1.0, -0.5)
    perform(one, Action.NO_CLIP)
    perform(one, Action.TOP_UP)
    assert one.show.height_m is None


def test_what_is_not_there_is_not_switched_on_and_the_reason_is_said() -> None:
    one = state()
    for action in (Action.TRUTH, Action.SECOND, Action.DIFFERENCE):
        perform(one, action)
        assert one.show.voxels == "labels" and one.message
    one.available = Available(truth=True)
    perform(one, Action.DIFFERENCE)
    assert one.show.voxels == "difference"
    perform(one, Action.DIFFERENCE)
    assert one.show.voxels == "labels"


def test_a_box_has_its_corners_in_any_order_and_its_own_height() -> None:
    one = state()
    one.set_tool("box")
    one.pick((5, 9, 2))
    assert one.box() is None
    one.pick((8, 3, 1))
    assert one.box() == ((5, 3, 1), (8, 9, 2))
    perform(one, Action.BOX_TOP_UP)
    perform(one, Action.BOX_BOTTOM_DOWN)
    perform(one, Action.BOX_BOTTOM_DOWN)
    assert one.box() == ((5, 3, 0), (8, 9, 3))
    perform(one, Action.CANCEL)
    assert one.corners == () and one.tool == "box"


class Reviewing:
    """One reviewer's controller, with a writer in the background."""

    def __init__(self, store: Path, reviewer: str = "ann") -> None:
        reviews = Reviews(LabelStore.open(store))
        self.session = ReviewSession(StoredLabels(store), "no log", reviews=reviews)
        self.shared = SharedReview(reviews)
        self.writer = BackgroundWriter(self.shared, reviewer, lambda: None)
        self.controller = ReviewController(state(), self.writer)
        self.state, self.act = self.controller.state, self.controller.act

    def wanted(self) -> WantedJobs:
        return wanted_jobs(self.state, self.shared, 400)


def test_verdicts_given_by_key_are_on_the_disk(store: Path) -> None:
    one = Reviewing(store)
    one.act(Action.REJECT)
    one.act(Action.ACCEPT)
    one.act(Action.UNSURE)
    one.act(Action.UNDO)
    one.writer.close()
    assert one.state.k == 3 and not one.writer.failed
    found = Reviews(LabelStore.open(store)).verdicts("scene-a")
    assert {t: v.verdict for t, v in found.items()} == {
        "a0": Verdict.REJECT,
        "a1": Verdict.ACCEPT,
    }
    one.controller.update_judged()
    assert one.state.judged == {("scene-a", "a0"), ("scene-a", "a1")}


def test_labels_without_an_overlay_say_that_nothing_is_written(store: Path) -> None:
    writer = BackgroundWriter(SharedReview(None), "ann", lambda: None)
    ReviewController(state(), writer).act(Action.ACCEPT)
    writer.close()
    assert writer.failed and "not written" in writer.message


@pytest.mark.parametrize(
    ("tool", "picked", "n", "painted"),
    [("component", [(28, 20, 3)], 6 * 4 * 3, CAR), ("box", [(0, 0, 1), (3, 4, 1)], 20, ROAD)],
)
def test_a_selection_is_painted_and_undone(
    store: Path, tool: str, picked: list[tuple[int, int, int]], n: int, painted: int
) -> None:
    one = Reviewing(store)
    one.state.set_tool(tool)  # type: ignore[arg-type]
    for cell in picked:
        one.state.pick(cell)
    one.state.class_id = TREE
    wanted = one.wanted()
    assert wanted.selection is not None
    view = make(one.session, wanted.view, lambda job: None)
    selection = make(one.session, wanted.selection, lambda job: view)
    assert isinstance(view, MadeView) and isinstance(selection, MadeSelection)
    assert len(selection.voxels) == n
    assert (view.frame.labels.semantics.ravel()[selection.voxels] == painted).all()
    one.controller.paint(view.frame, selection.voxels)
    one.writer._pen.submit(lambda: None).result()
    after = one.wanted().view
    assert after != wanted.view and after.edits
    again = make(one.session, after, lambda job: None)
    assert isinstance(again, MadeView)
    assert (again.frame.labels.semantics.ravel()[selection.voxels] == TREE).all()
    one.act(Action.UNDO)
    one.writer.close()
    assert one.wanted().view == wanted.view
    assert not [
        e for e in Reviews(LabelStore.open(store)).entries() if isinstance(e.what, EditEntry)
    ]


def test_what_another_reviewer_wrote_is_seen_after_a_refresh(store: Path) -> None:
    one = Reviewing(store)
    other = Reviewing(store, "bob")
    other.act(Action.REJECT)
    other.writer.close()
    assert one.controller.verdict_line()[0] == ""
    one.writer.refresh()
    one.writer.close()
    assert one.controller.verdict_line() == ("reject", "reject by bob")
    assert one.controller.verdicts() == ["reject", "", "", ""]


def test_the_estimate_is_told_once_frames_are_judged(store: Path) -> None:
    one = Reviewing(store)
    for _ in range(4):
        one.act(Action.ACCEPT)
    one.act(Action.NEXT_SCENE)
    one.act(Action.REJECT)
    one.act(Action.ACCEPT)
    one.writer.close()
    one.writer._estimate()
    assert estimate_rows(one.writer.estimate)[0][1].startswith("16.7 % (95 %: 16.7..16.7)")


def test_the_worker_makes_the_latest_wish_first_and_drops_what_is_not_wanted() -> None:
    begun, go = threading.Event(), threading.Event()
    made: list[str] = []
    delivered = threading.Semaphore(0)

    def make_one(job: str) -> str:
        begun.set()
        assert go.wait(10)
        made.append(job)
        if job == "bad":
            raise ValueError(job)
        return job.upper()

    results: dict[str, object] = {}

    def deliver(job: str, result: object) -> None:
        results[job] = result
        delivered.release()

    worker: LatestWorker[str, str] = LatestWorker(make_one, deliver, keep=2)
    worker.want(["first", "never"])
    assert begun.wait(10)
    worker.want(["urgent", "bad", "later"])
    go.set()
    for _ in range(4):
        assert delivered.acquire(timeout=10)
    worker.close()
    assert made == ["first", "urgent", "bad", "later"]
    assert isinstance(results["bad"], ValueError) and results["urgent"] == "URGENT"
    assert (worker.made("urgent"), worker.made("later")) == ("URGENT", "LATER")
    assert worker.made("first") is None and worker.made("bad") is None


@pytest.mark.parametrize("size", [(1920, 1080), (1366, 768), (960, 540), (7680, 4320)])
def test_parts_of_the_window_fill_it_without_overlap(size: tuple[int, int]) -> None:
    width, height = size
    parts = window_layout(0, 0, width, height)
    canvas = np.zeros((height, width), int)
    for part in (parts.layers, parts.header, parts.scene, parts.footer, parts.review):
        canvas[part.top : part.bottom, part.left : part.right] += 1
    assert (canvas == 1).all()
    assert parts.scene.width >= 300 and parts.scene.height >= 300


def test_saved_views_come_back_and_a_damaged_file_is_none(tmp_path: Path) -> None:
    path = tmp_path / "new" / "views.json"
    view = View(eye_m=(1.0, 2.0, 3.0), target_m=(0.0, 0.0, 0.0))
    assert read_views(path) == {}
    write_views(path, {3: view})
    write_views(path, {**read_views(path), 1: replace(view, up=(1.0, 0.0, 0.0))})
    assert read_views(path)[3] == view and read_views(path)[1].up == (1.0, 0.0, 0.0)
    path.write_text('{"1": {"eye_m": [1, 2]}}')
    assert read_views(path) == {}


def test_merged_faces_cover_the_same_surface_in_the_same_colors() -> None:
    rng = np.random.default_rng(3)
    shape = (17, 13, 7)
    grid = VoxelGrid(min_m=(-4.0, 0.0, -1.0), size_m=(0.5, 0.25, 1.0), shape=shape)
    ids = rng.integers(0, 3, shape).astype(np.uint8).repeat(1, axis=0)
    ids[:, :9] = 1
    shown = rng.random(shape) < 0.8
    table = OCC3D_NUSCENES.color_table()
    merged = merged_faces(ids, shown, grid, table)
    plain = surface_meshes(ids, shown, grid)
    n_plain = sum(len(mesh.corners_m) for mesh in plain)
    assert len(merged.corners_m) < 0.8 * n_plain

    def unit_faces(corners: np.ndarray) -> Counter[tuple[float, ...]]:
        found: Counter[tuple[float, ...]] = Counter()
        for face in corners.astype(np.float64):
            a, b = face[1] - face[0], face[3] - face[0]
            normal = np.cross(a, b) / np.linalg.norm(np.cross(a, b))
            cells_a = max(1, round(float(np.abs(a / np.array(grid.size_m)).max())))
            cells_b = max(1, round(float(np.abs(b / np.array(grid.size_m)).max())))
            assert max(cells_a, cells_b) <= BLOCK
            for i in range(cells_a):
                for j in range(cells_b):
                    middle = face[0] + a * (i + 0.5) / cells_a + b * (j + 0.5) / cells_b
                    found[tuple(np.round([*middle, *normal], 4) + 0.0)] += 1
        return found

    expected = unit_faces(np.concatenate([mesh.corners_m for mesh in plain]))
    assert unit_faces(merged.corners_m) == expected
    assert max(expected.values()) == 1
    for mesh in plain:
        brightest = np.asarray(table[mesh.id], int)
        ours = merged.colors.astype(int)
        assert (np.abs(ours - brightest).sum(axis=1) <= 1).any()


def test_faces_that_look_down_are_told_from_the_others() -> None:
    shown = np.zeros(GRID.shape, bool)
    shown[3, 4, 5] = True
    ids = np.zeros(GRID.shape, np.uint8)
    mesh = merged_faces(ids, shown, GRID, OCC3D_NUSCENES.color_table())
    down = faces_down(mesh.corners_m)
    assert down.sum() == 1
    assert (mesh.corners_m[down][0, :, 2] == GRID.min_m[2] + 5 * 0.5).all()


def test_a_click_in_the_middle_looks_along_the_camera_and_one_at_the_edge_along_its_field() -> None:
    model = np.eye(4)
    model[:3, 3] = (1.0, 2.0, 3.0)
    half = np.radians(26.0)
    projection = np.diag([1 / np.tan(half), 1 / np.tan(half), -1.0, 0.0])
    eye, direction = ray_of(model, projection, 0.5, 0.5)
    np.testing.assert_allclose(eye, [1, 2, 3])
    np.testing.assert_allclose(direction, [0, 0, -1], atol=1e-12)
    _, top = ray_of(model, projection, 0.5, 0.0)
    np.testing.assert_allclose(top, [0, np.sin(half), -np.cos(half)], atol=1e-12)
    _, right = ray_of(model, projection, 1.0, 0.5)
    assert right[0] == pytest.approx(np.sin(half))
