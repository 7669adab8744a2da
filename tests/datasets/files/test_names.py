"""Names that a log gives: what may become a file's name, and that nothing leaves its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_scenes import header

from datasets.benchmarks import occ3d_nuscenes, openocc_flow, openoccupancy, surroundocc
from datasets.errors import SceneError
from datasets.frames import Frame, Scene
from datasets.labels.store import LabelStore
from datasets.names import below, fault_of_scene_id, fault_of_token, inside

ODD_TOKENS = [
    *("", ".", "..", "../../../elsewhere", "cam/0001", "/etc/passwd", "a\0b", "a\nb", "a\\b"),
    *("x" * 201, "\N{LATIN SMALL LETTER SHARP S}" * 101, "\ud800"),
]
ODD_SCENES = [
    *("", ".", "..", ".hidden", "-rf", "Stra\N{LATIN SMALL LETTER SHARP S}e 7", "two words"),
    *("a,b", "a/b", "../up", "a\0", "x" * 201, "\udcff"),
]


@pytest.mark.parametrize("token", ODD_TOKENS)
def test_a_token_that_is_no_file_name_is_refused_and_shown(token: str) -> None:
    fault = fault_of_token(token)
    assert fault.isprintable() and len(fault) < 200
    assert "frame token" in fault
    with pytest.raises(SceneError, match="frame token"):
        frame_of(token)


@pytest.mark.parametrize("token", ["0001", "a b", "n015-2018__1532402927647951", "x" * 200, "..a"])
def test_usual_tokens_pass(token: str) -> None:
    assert fault_of_token(token) == ""
    assert frame_of(token).token == token


@pytest.mark.parametrize("scene_id", ODD_SCENES)
def test_a_scene_id_that_is_no_folder_name_is_refused_and_shown(scene_id: str) -> None:
    fault = fault_of_scene_id(scene_id)
    assert fault.isprintable() and "rename the scene" in fault
    with pytest.raises(SceneError, match="scene id"):
        Scene(scene_id=scene_id, frames=(frame_of("t"),))


@given(st.text(max_size=12), st.text(max_size=12))
def test_no_name_leads_out_of_its_folder(scene: str, token: str) -> None:
    root = Path("/log/gts")
    try:
        path = inside(root, scene, token)
    except SceneError:
        return
    assert path.parent.parent == root and path.name == token


PATHS: list[Callable[[Path, str], Path]] = [
    lambda root, name: occ3d_nuscenes.labels_path(root, "s", name),
    lambda root, name: occ3d_nuscenes.labels_path(root, name, "t"),
    lambda root, name: openocc_flow.labels_path(root, "s", name),
    lambda root, name: openoccupancy.labels_path(root, "s", name),
    lambda root, name: openoccupancy.labels_path(root, name, "t"),
    lambda root, name: surroundocc.labels_path(root, name),
]


@pytest.mark.parametrize("path_of", PATHS)
@pytest.mark.parametrize("name", ["/../../../elsewhere", "a/b", "/etc/passwd", "a\0"])
def test_label_files_stay_in_their_folder(path_of: Callable[[Path, str], Path], name: str) -> None:
    with pytest.raises(SceneError, match="is no name of a file"):
        path_of(Path("out"), name)
    assert path_of(Path("out"), "ok").is_relative_to("out")


@pytest.mark.parametrize("path", ["x" * 256, "\u00e9" * 128, "y/" * 2000 + "z"])
def test_a_path_longer_than_file_systems_take_is_refused(path: str) -> None:
    with pytest.raises(SceneError, match=r"scene\.json: the path .* longer than file systems take"):
        below(Path("log"), path, where="scene.json")
    assert below(Path("log"), "x" * 255, where="scene.json").name == "x" * 255


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "", "a\0"])
def test_a_table_names_files_below_the_log_only(path: str) -> None:
    with pytest.raises(SceneError, match=r"sample_data\.json: the path .* must be relative"):
        below(Path("log"), path, where="sample_data.json")
    assert below(Path("log"), "samples/a.jpg", where="x") == Path("log/samples/a.jpg")


@pytest.mark.parametrize("scene_id", ODD_SCENES)
def test_a_store_notes_why_a_scene_of_an_odd_id_has_no_labels(
    scene_id: str, tmp_path: Path
) -> None:
    store = LabelStore.create(tmp_path / "labels.zarr", header())
    store.quarantine(scene_id, "its name", "")
    store.quarantine("usual", "bad", "")
    assert store.quarantined().keys() == {scene_id, "usual"}
    assert store.quarantined()[scene_id]["reason"] == "its name"
    assert scene_id not in store
    assert {p.name for p in tmp_path.iterdir()} == {"labels.zarr"}


def frame_of(token: str) -> Frame:
    return Frame(
        scene_id="s",
        token=token,
        timestamp_us=0,
        T_global_ego=np.eye(4),
        cameras=(),
        lidar=None,
    )
