"""A nuScenes root with links that go round or lead elsewhere, odd names, and files cut short."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bounded_reading import refusal_of

from datasets.errors import AutolabelError, SceneError
from datasets.frames import LidarSweep
from datasets.sources.nuscenes import NuScenesSource

Rows = list[dict[str, Any]]


@pytest.fixture()
def log(city: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(city, tmp_path / "city"))


def edit(root: Path, table: str, change: Callable[[Rows], object]) -> None:
    (path,) = root.glob(f"v1.0-*/{table}.json")
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def chain(rows: Rows, scene: int = 0) -> Rows:
    """Samples of a scene, in order."""
    tokens = list(dict.fromkeys(r["scene_token"] for r in rows))
    mine = [r for r in rows if r["scene_token"] == tokens[scene]]
    return sorted(mine, key=lambda r: r["timestamp"])


def sweeps(rows: Rows) -> Rows:
    """LiDAR rows of the first scene, in order."""
    mine = [r for r in rows if "LIDAR_TOP" in r["filename"]]
    first = next(r for r in mine if not r["prev"])
    by_token, out = {r["token"]: r for r in mine}, [first]
    while out[-1]["next"]:
        out.append(by_token[out[-1]["next"]])
    return out


def only_one_is_refused(log: Path, match: str, *, past: int = 9, future: int = 0) -> None:
    """The first scene is refused with this reason, the other is read."""
    source = NuScenesSource(log, past_sweeps=past, future_sweeps=future)
    refused = []
    for scene_id in source.scene_ids("all"):
        try:
            assert len(source.scene(scene_id).frames) == 3
        except SceneError as error:
            refused.append(str(error))
    assert len(refused) == 1
    assert re.search(match, refused[0]), refused[0]


@pytest.mark.parametrize("to", [0, 1, 2])
def test_samples_that_go_round_are_refused(log: Path, to: int) -> None:
    def change(rows: Rows) -> None:
        mine = chain(rows)
        mine[2]["next"] = mine[to]["token"]

    edit(log, "sample", change)
    only_one_is_refused(log, r'sample\.json.*the chain of "next" links goes round')


def test_samples_that_lead_into_another_scene_are_refused(log: Path) -> None:
    def change(rows: Rows) -> None:
        chain(rows)[2]["next"] = chain(rows, 1)[0]["token"]

    edit(log, "sample", change)
    only_one_is_refused(log, "of another scene")


@pytest.mark.parametrize("link", ["prev", "next"])
@pytest.mark.parametrize("gone", [False, True])
def test_sweeps_that_go_round_are_refused(log: Path, link: str, gone: bool) -> None:
    """Files that are missing are passed over, and so would never fill the count asked for."""

    def change(rows: Rows) -> None:
        mine = sweeps(rows)
        mine[1][link], mine[2][link] = mine[2]["token"], mine[1]["token"]
        for row in mine[1:3] if gone else ():
            (log / row["filename"]).unlink(missing_ok=True)

    edit(log, "sample_data", change)
    only_one_is_refused(log, rf'sample_data\.json.*the chain of "{link}" links goes', future=9)


def test_sweeps_of_another_scene_are_refused(log: Path) -> None:
    def change(rows: Rows) -> None:
        mine = sweeps(rows)
        own = {r["token"] for r in mine}
        other = next(r for r in rows if "LIDAR_TOP" in r["filename"] and r["token"] not in own)
        mine[0]["prev"] = other["token"]

    edit(log, "sample_data", change)
    only_one_is_refused(log, "of another scene or sensor")


@pytest.mark.parametrize("sensor", ["LIDAR_TOP", "CAM_FRONT/"])
@pytest.mark.parametrize("name", ["../secret.bin", "/etc/passwd"])
def test_files_outside_the_root_are_refused(log: Path, sensor: str, name: str) -> None:
    def change(rows: Rows) -> None:
        row = next(r for r in rows if sensor in r["filename"] and r["is_key_frame"])
        row["filename"] = name

    edit(log, "sample_data", change)
    only_one_is_refused(log, r"sample_data\.json.*must be relative", past=0)


def test_tokens_that_are_no_file_names_are_refused(log: Path) -> None:
    token = "../../elsewhere"

    def samples(rows: Rows) -> None:
        mine = chain(rows)
        mine[0]["token"] = mine[1]["prev"] = token

    def others(rows: Rows) -> None:
        for row in rows:
            row["sample_token"] = token if row["sample_token"] == old else row["sample_token"]

    (path,) = log.glob("v1.0-*/sample.json")
    old = chain(json.loads(path.read_text()))[0]["token"]
    edit(log, "sample", samples)
    edit(log, "sample_data", others)
    edit(log, "sample_annotation", others)
    edit(
        log,
        "scene",
        lambda rows: [
            r.update(first_sample_token=token) for r in rows if r["first_sample_token"] == old
        ],
    )
    only_one_is_refused(log, "frame token '../../elsewhere'")


def test_a_scene_name_that_is_no_folder_name_is_refused(log: Path) -> None:
    edit(log, "scene", lambda rows: rows[0].update(name="../up"))
    source = NuScenesSource(log, past_sweeps=0)
    for read in (source.scene, source.n_frames):
        with pytest.raises(SceneError, match=r"scene\.json: scene id '\.\./up'"):
            read("../up")
    only_one_is_refused(log, "scene id")


def front_sweep(path: Path, seed: int, keep: float = 1.0) -> LidarSweep:
    """A whole file of a LiDAR that sees 120 degrees ahead, its points ordered by azimuth."""
    rng = np.random.default_rng(seed)
    angle = np.radians(np.sort(rng.uniform(30, 150, 3000)))[: int(3000 * keep)]
    r = rng.uniform(4, 40, len(angle))
    rows = np.stack(
        [r * np.cos(angle), r * np.sin(angle), 0 * r - 1.8, 0 * r + 50, 0 * r], 1
    ).astype(np.float32)
    rows.tofile(path)
    return LidarSweep(path=path, timestamp_us=0, T_ego_lidar=np.eye(4))


def test_a_lidar_that_looks_ahead_is_read_and_its_cut_files_are_named(
    city: Path, tmp_path: Path
) -> None:
    source = NuScenesSource(city, past_sweeps=0)
    folder = tmp_path / "LIDAR_FRONT"
    folder.mkdir()
    alone = front_sweep(folder / "0.bin", 0)
    assert len(source.read_points(alone)) == 3000  # nothing to compare it with
    other = tmp_path / "more" / "LIDAR_FRONT"
    other.mkdir(parents=True)
    whole = [front_sweep(other / f"{i}.bin", i) for i in range(4)]
    cut = front_sweep(other / "4.bin", 4, keep=0.6)
    assert all(len(source.read_points(sweep)) == 3000 for sweep in whole)
    with pytest.raises(SceneError, match=r"truncated: .* in other sweeps of LIDAR_FRONT over 24"):
        source.read_points(cut)


def test_a_spinning_lidars_cut_file_is_named_after_its_other_sweeps(log: Path) -> None:
    source = NuScenesSource(log, past_sweeps=0)
    lidar = source.scene(source.scene_ids("all")[0]).frames[1].lidar
    assert lidar is not None
    rows = np.fromfile(lidar.path, np.float32).reshape(-1, 5)
    order = np.argsort(np.arctan2(rows[:, 1], rows[:, 0]))  # as a spinning LiDAR writes them
    rows[order[: len(rows) // 2]].tofile(lidar.path)
    with pytest.raises(SceneError, match="truncated") as caught:
        source.read_points(lidar)
    assert lidar.path.name in str(caught.value)


@pytest.mark.parametrize(
    "number",
    [10**30, 10**400, -(10**400), 2**63, float("nan"), None, [], "x"],
    ids=["1e30", "1e400", "-1e400", "2^63", "nan", "null", "list", "text"],
)
@pytest.mark.parametrize(
    ("table", "key"),
    [
        *(("sample_data", "timestamp"), ("sample_data", "width"), ("sample_data", "height")),
        *(("ego_pose", "translation"), ("calibrated_sensor", "camera_intrinsic")),
        ("scene", "nbr_samples"),
    ],
)
def test_numbers_that_nothing_can_hold_are_refused_in_good_order(
    log: Path, table: str, key: str, number: Any
) -> None:
    """No row makes numpy or Python raise what a command does not catch."""

    def spoil(rows: Rows) -> None:
        for row in rows:
            values = row[key]
            row[key] = [number, *values[1:]] if isinstance(values, list) and values else number

    edit(log, table, spoil)
    problems = 0
    try:
        source = NuScenesSource(log, past_sweeps=2, refuse_impossible=True)
        for scene_id in source.scene_ids("all"):
            for read in (source.n_frames, source.scene):
                try:
                    read(scene_id)
                except SceneError as error:
                    problems += 1
                    str(error).encode("utf-8")
    except AutolabelError:
        problems += 1
    never = isinstance(number, float) or number is None or number == [] or number == "x"
    too_large = isinstance(number, int) and (abs(number) > 1e300 or key != "translation")
    assert problems or not (never or too_large)


@pytest.mark.parametrize("name", ["\ud800", "a\0b", "x" * 5000], ids=["surrogate", "nul", "long"])
@pytest.mark.parametrize(
    ("table", "key"), [("scene", "name"), ("sample_data", "filename"), ("sample", "token")]
)
def test_names_that_no_file_can_have_are_refused(
    log: Path, table: str, key: str, name: str
) -> None:
    edit(
        log,
        table,
        lambda rows: [
            r.update({key: name})
            for r in (rows if key == "filename" else rows[:1])
            if key != "filename" or "LIDAR_TOP" in r[key]
        ],
    )
    refused = []
    try:
        source = NuScenesSource(log, past_sweeps=0)
        for scene_id in source.scene_ids("all"):
            try:
                for frame in source.scene(scene_id).frames:
                    for sweep in frame.sweeps:
                        source.read_points(sweep)
                    for view in frame.cameras:
                        source.read_image(view)
            except SceneError as error:
                refused.append(str(error))
    except AutolabelError as error:
        refused.append(str(error))
    assert refused
    for message in refused:
        message.encode("utf-8")


@pytest.mark.parametrize("table", ["sample_data", "ego_pose", "scene"])
@pytest.mark.parametrize("keep", [True, False])
def test_a_table_with_holes_is_refused_before_memory_is_taken(
    log: Path, table: str, keep: bool
) -> None:
    (path,) = log.glob(f"v1.0-*/{table}.json")
    path.write_bytes(path.read_bytes() if keep else b"")
    os.truncate(path, 3 << 30)
    said = refusal_of(lambda: NuScenesSource(log, past_sweeps=0))
    assert "zero bytes" in said or "MAX_TABLE_BYTES" in said


def test_a_table_that_is_a_pipe_is_not_waited_for(log: Path) -> None:
    (path,) = log.glob("v1.0-*/ego_pose.json")
    path.unlink()
    os.mkfifo(path)
    assert "not a regular file" in refusal_of(lambda: NuScenesSource(log, past_sweeps=0))


@pytest.mark.parametrize("table", ["scene", "sample", "sample_data", "ego_pose", "sensor"])
def test_a_row_that_lacks_anything_is_refused_in_good_order(log: Path, table: str) -> None:
    (path,) = log.glob(f"v1.0-*/{table}.json")
    whole = path.read_text()
    refused = 0
    for key in json.loads(whole)[0]:
        for value in (None, "\ud800", 10**400):
            rows = json.loads(whole)
            if value is None:
                del rows[0][key]
            else:
                rows[0][key] = value
            path.write_text(json.dumps(rows))
            try:
                source = NuScenesSource(log, past_sweeps=2, refuse_impossible=True)
                for scene_id in source.scene_ids("all"):
                    source.scene(scene_id)
                    source.fingerprint(scene_id)
            except AutolabelError as error:
                refused += 1
                str(error).encode("utf-8")
    assert refused >= 3
