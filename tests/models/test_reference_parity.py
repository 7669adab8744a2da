"""The published input pipeline, on the real frame that the reference outputs were made from."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from network_stages import TEACHER, load_arrays, oracle_folder, reference_depth

from datasets.frames import Frame
from datasets.model_inputs import FrameInputs, collate, depth_maps, prepare_frame
from datasets.sources.nuscenes import NuScenesSource
from models.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from models.networks.view_transform import LssConfig
from models.presets import build_network, preset

SHARED = Path(__file__).resolve().parents[2] / ".." / "shared"
ORACLE = oracle_folder(os.environ)
REAL = Path(os.environ.get("AUTOLABEL_REAL_DATA", SHARED / "data")) / "nuscenes-real"
TOKEN = "ca9a282c9e77460f8360f564131a8af5"
real_data = pytest.mark.skipif(
    not ((ORACLE / "teacher_r18.npz").is_file() and REAL.is_dir()),
    reason="no reference outputs or real data: set AUTOLABEL_ORACLE and AUTOLABEL_REAL_DATA",
)


@cache
def reference() -> dict[str, Any]:
    return load_arrays(ORACLE, TEACHER.file)


@cache
def frame_inputs() -> FrameInputs:
    source = NuScenesSource(REAL, past_sweeps=0)
    frames = [f for s in source.scene_ids("all") for f in source.scene(s).frames]
    frame: Frame = next(f for f in frames if f.token == TOKEN)
    spec = preset("fusion_r18_occ3d").with_reference_parity().inputs
    return prepare_frame(source, frame, spec)


@real_data
def test_pictures_equal_the_reference_with_blue_first() -> None:
    want = reference()["canvas_u8"][..., ::-1]
    np.testing.assert_array_equal(frame_inputs().images, want)
    images = collate([frame_inputs()]).images[0]
    steps = tuple(slice(None, None, int(s)) for s in reference()["in_img__stride"])
    np.testing.assert_allclose(images[steps], reference()["in_img__sub"], atol=1e-5)


@real_data
def test_camera_geometry_equals_the_reference() -> None:
    z, got = reference(), collate([frame_inputs()])
    np.testing.assert_allclose(got.intrinsics[0], z["in_intrins"], atol=1e-3)
    np.testing.assert_allclose(got.post_image[0, :, :2, :2], z["in_post_rots"][:, :2, :2])
    np.testing.assert_allclose(got.post_image[0, :, :2, 2], z["in_post_trans"][:, :2])
    np.testing.assert_allclose(got.T_ego_camera[0], z["sensor2keyego"], atol=2e-3)


@real_data
def test_points_equal_the_reference_and_keep_the_vehicle() -> None:
    points = frame_inputs().points
    assert points is not None
    np.testing.assert_allclose(points[:, :5], reference()["in_points_ego"], atol=5e-3)


@real_data
def test_depth_maps_of_the_reference_points_equal_the_reference() -> None:
    """Given the same points, only ties within a pixel may fall to another return."""
    z, spec = reference(), preset("fusion_r18_occ3d").with_reference_parity().inputs
    post = frame_inputs().post_image
    points = z["in_points_ego"][:, :3]
    depth = depth_maps(points, list(z["in_sensor2ego"]), z["in_intrins"], post, spec)
    want = reference_depth(z)
    np.testing.assert_array_equal(depth > 0, want > 0)
    assert (np.abs(depth - want) > 1e-3).sum() <= 5


@real_data
def test_depth_maps_from_the_log_equal_the_reference() -> None:
    """The reference's float32 poses move points by a millimetre, and few of them to a neighbour."""
    depth = frame_inputs().depth
    assert depth is not None
    want = reference_depth(reference())
    same = np.abs(depth - want) < 5e-3
    assert same[want > 0].mean() > 0.99


def test_one_switch_in_the_weights_file_sets_inputs_and_lift(tmp_path: Path) -> None:
    network = build_network(preset("camera_tiny").network)
    save_checkpoint(tmp_path / "w.safetensors", network, "camera_tiny", {})
    assert not load_checkpoint(tmp_path / "w.safetensors").preset.inputs.reference_parity
    metadata = {"reference_parity": "true"}
    save_checkpoint(tmp_path / "w.safetensors", network, "camera_tiny", metadata)
    assert load_checkpoint(tmp_path / "w.safetensors").preset.inputs.reference_parity
    for name in ("fusion_r18_occ3d", "flashocc_r50"):
        clean, published = preset(name), preset(name).with_reference_parity()
        for spec, parity in ((clean, False), (published, True)):
            assert spec.inputs.reference_parity is parity
            camera = spec.network.camera
            assert camera is not None and isinstance(camera.lift, LssConfig)
            assert camera.lift.reference_parity is parity
