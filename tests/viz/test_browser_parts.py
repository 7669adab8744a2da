"""Parts of review in a browser: its meshes, its points, its worker, its words."""

from __future__ import annotations

import json
import struct
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.errors import SetupError
from datasets.geometry.grid import VoxelGrid
from datasets.taxonomy import OCC3D_NUSCENES
from viz.browser.gltf import before_tone_curve, glb
from viz.browser.html_fragments import legend, lines, table
from viz.browser.scene import without_floor
from viz.browser.worker import Worker
from viz.render.scene3d import ColoredMesh, lifted
from viz.render.text import LegendRow
from viz.render.voxel_mesh import surface_meshes


def mesh(n: int, *, seed: int = 0) -> ColoredMesh:
    rng = np.random.default_rng(seed)
    return ColoredMesh(
        name="m",
        corners_m=rng.uniform(-50, 50, (n, 4, 3)).astype(np.float32),
        colors=rng.integers(0, 256, (n, 3), dtype=np.uint8),
    )


def read(data: bytes) -> tuple[dict, list[dict[str, np.ndarray]]]:
    """The document of a binary glTF, and the arrays of each of its primitives."""
    magic, version, length = struct.unpack_from("<III", data)
    assert (magic, version, length) == (0x46546C67, 2, len(data))
    n_json, _ = struct.unpack_from("<II", data, 12)
    document = json.loads(data[20 : 20 + n_json])
    n_buffer, _ = struct.unpack_from("<II", data, 20 + n_json)
    buffer = data[28 + n_json :]
    assert len(buffer) == n_buffer

    def array(i: int) -> np.ndarray:
        accessor = document["accessors"][i]
        view = document["bufferViews"][accessor["bufferView"]]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        start, stride = view["byteOffset"] + accessor.get("byteOffset", 0), view.get("byteStride")
        step = (stride or 2 * width) // 2
        assert accessor["componentType"] == 5123
        assert start + 2 * step * accessor["count"] <= view["byteOffset"] + view["byteLength"]
        flat = np.frombuffer(buffer, np.uint16, step * accessor["count"], start)
        return flat.reshape(-1, step)[:, :width]

    primitives = document["meshes"][0]["primitives"]
    return document, [
        {
            "corners": array(p["attributes"]["POSITION"]),
            "colors": array(p["attributes"]["COLOR_0"]),
            "indices": array(p["indices"])[:, 0],
        }
        for p in primitives
    ]


@pytest.mark.parametrize("n", [1, 2, 16383, 16384, 40000])
def test_every_corner_is_where_it_was_and_every_face_two_triangles(n: int) -> None:
    given_mesh = mesh(n)
    document, parts = read(glb([given_mesh]))
    node = document["nodes"][0]
    found = np.concatenate([p["corners"] for p in parts]).astype(np.float64)
    places = found * node["scale"] + node["translation"]
    wanted = given_mesh.corners_m.reshape(-1, 3)
    assert np.abs(places - wanted).max() <= 100 / 65535
    assert sum(len(p["indices"]) for p in parts) == 6 * n
    for part in parts:
        quads = part["indices"].reshape(-1, 6)
        wanted_quads = 4 * np.arange(len(quads))[:, None] + np.array([0, 1, 2, 0, 2, 3])
        np.testing.assert_array_equal(quads, wanted_quads)
        assert part["indices"].max() < len(part["corners"]) <= 65535


def test_no_faces_are_no_bytes() -> None:
    assert glb([]) == b"" == glb([mesh(0)])


def test_meshes_come_one_after_the_other() -> None:
    a, b = mesh(3, seed=1), mesh(5, seed=2)
    _, (part,) = read(glb([a, b]))
    colors = before_tone_curve(np.concatenate([a.colors, b.colors])) * 65535
    np.testing.assert_array_equal(part["colors"][::4, :3], colors.round())


def tone_curve(linear: np.ndarray) -> np.ndarray:
    """three.js' ACESFilmicToneMapping with exposure 1, and its way to sRGB 0..255."""
    into = [[0.59719, 0.35458, 0.04823], [0.07600, 0.90834, 0.01566], [0.02840, 0.13383, 0.83777]]
    out = [
        [1.60475, -0.53108, -0.07367],
        [-0.10208, 1.10813, -0.00605],
        [-0.00327, -0.07276, 1.07602],
    ]
    v = (linear / 0.6) @ np.array(into).T
    v = (v * (v + 0.0245786) - 0.000090537) / (v * (0.983729 * v + 0.4329510) + 0.238081)
    x = np.clip(v @ np.array(out).T, 0, 1)
    return 255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


def test_the_renderers_curve_gives_the_colors_back() -> None:
    grey = np.arange(0, 226, dtype=np.uint8)[:, None].repeat(3, axis=1)
    np.testing.assert_allclose(tone_curve(before_tone_curve(grey)), grey, atol=0.5)
    names = [n for n in OCC3D_NUSCENES.names if n != "free"]
    colors = np.array([OCC3D_NUSCENES.colors[OCC3D_NUSCENES.id_of(n)] for n in names], np.uint8)
    worst = np.abs(tone_curve(before_tone_curve(colors)) - colors).max(axis=1)
    assert np.median(worst) < 1
    seen = tone_curve(before_tone_curve(colors)).round()
    apart = [np.abs(c[:, None] - c[None]).sum(axis=2) for c in (seen, colors.astype(np.float64))]
    assert (apart[0] >= 0.4 * apart[1]).all()  # classes can be told apart as before


def test_only_the_undersides_on_the_grids_floor_are_left_out() -> None:
    grid = VoxelGrid(min_m=(0.0, 0.0, -1.3), size_m=(0.4, 0.4, 0.4), shape=(6, 5, 4))
    shown = np.zeros(grid.shape, bool)
    shown[1:4, 1:3, 0] = shown[2, 2, 3] = True  # six on the floor, one in the air
    (surface,) = surface_meshes(np.zeros(grid.shape, np.uint8), shown, grid)
    colors = np.arange(3 * len(surface.shades), dtype=np.uint8).reshape(-1, 3)
    whole = ColoredMesh(name="m", corners_m=surface.corners_m, colors=colors)
    left = without_floor(whole, grid.min_m[2])
    assert len(left.corners_m) == len(whole.corners_m) - 6 == 2 * 6 + 10 + 6 - 6
    rows = {tuple(c) for c in left.colors.tolist()}
    gone = [i for i, c in enumerate(colors.tolist()) if tuple(c) not in rows]
    np.testing.assert_allclose(whole.corners_m[gone][:, :, 2], -1.3, atol=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_lifted_points_lie_on_the_rays_to_the_eye_and_before_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-50, 50, (20, 3)).astype(np.float32)
    eye = rng.uniform(-50, 50, 3)
    moved = lifted(points, eye)
    before, after = eye - points, eye - moved
    np.testing.assert_allclose(np.cross(before, after), 0, atol=0.05)
    d0, d1 = np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1)
    assert (d1 <= d0 + 1e-3).all() and (d1 >= d0 - 0.75 - 1e-3).all()
    assert ((before * after).sum(axis=1) >= 0).all()


class Log:
    """Jobs that write down their names, and a gate that holds the worker."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.said: list[str] = []
        self.worker = Worker("test", self.said.append)
        self.gate = threading.Event()

    def post(self, name: str, text: str, **options: float) -> None:
        self.worker.post(name, lambda: self.done.append(text), **options)

    def hold(self) -> None:
        begun = threading.Event()
        self.worker.post("gate", lambda: (begun.set(), self.gate.wait(10))[0])
        assert begun.wait(10)

    def until(self, n: int) -> list[str]:
        deadline = time.monotonic() + 10
        while len(self.done) < n:
            assert time.monotonic() < deadline, self.done
            time.sleep(0.005)
        return self.done


def test_of_jobs_with_one_name_only_the_last_is_done() -> None:
    log = Log()
    log.hold()
    for text in ("a1", "a2", "a3"):
        log.post("a", text)
    log.post("b", "b1")
    assert log.worker.waits("a") and not log.worker.waits("c")
    log.gate.set()
    assert log.until(2) == ["a3", "b1"]
    log.worker.stop()


def test_a_delayed_job_waits_until_it_is_quiet_and_lets_others_pass() -> None:
    log = Log()
    log.post("slow", "first", after_s=0.2)
    log.post("slow", "second", after_s=0.4)
    log.post("now", "now")
    assert log.until(2) == ["now", "second"]
    log.worker.stop()


def test_a_job_that_fails_is_told_and_the_next_is_done(capfd: pytest.CaptureFixture[str]) -> None:
    def refuse() -> None:
        raise SetupError("no such frame")

    def break_down() -> None:
        raise ZeroDivisionError

    log = Log()
    log.hold()
    log.worker.post("a", refuse)
    log.worker.post("b", break_down)
    log.post("c", "c")
    log.gate.set()
    assert log.until(1) == ["c"]
    assert log.said[0] == "no such frame" and len(log.said) == 2
    assert "ZeroDivisionError" in capfd.readouterr().err
    log.worker.stop()


def test_nothing_is_done_after_stop() -> None:
    log = Log()
    log.hold()
    log.post("a", "a")
    log.worker.stop()
    log.post("b", "b")
    log.gate.set()
    time.sleep(0.1)
    assert log.done == []


def test_text_from_files_and_people_is_no_markup() -> None:
    row = LegendRow(color=(1, 2, 3), name="<i>", count=1234)
    for html in (table([("<i>", "<i>")]), lines(["<i>"]), legend([row])):
        assert "<i>" not in html and "&lt;i&gt;" in html
