"""Every stage against outputs of the published code (formula weights, one real frame)."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.inputs import IMAGENET_MEAN, IMAGENET_STD, ModelInputs
from models.camera import CameraStudent
from models.fusion import FusionTeacher
from models.lidar_encoder import LidarEncoder
from models.ops.sparse_conv import SparseTensor
from models.presets import build_network, preset
from models.view_transform import LssViewTransform

ORACLE = Path(
    os.environ.get(
        "AUTOLABEL_ORACLE", Path(__file__).resolve().parents[1] / ".." / "shared" / "oracle"
    )
)
pytestmark = [
    pytest.mark.skipif(
        not (ORACLE / "teacher_r18.npz").is_file(),
        reason="no reference outputs: set AUTOLABEL_ORACLE to the oracle folder",
    ),
]
GAINS = {
    "img_view_transformer.depth_net.6.weight": 0.1,
    "img_view_transformer.depth_net.weight": 0.01,
    "pts_middle_encoder.conv_out.0.weight": 8.0,
    "img_bev_encoder_neck.up2.4.weight": 0.1,
}


@cache
def oracle(name: str) -> dict[str, Any]:
    with np.load(ORACLE / f"{name}.npz", allow_pickle=False) as z:
        return {k: z[k] for k in z.files}


def formula_value(key: str, shape: tuple[int, ...], keys: set[str]) -> np.ndarray[Any, Any]:
    n = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape)
    stem, kind = key.rsplit(".", 1)
    if kind == "running_mean":
        return 0.1 * n
    if kind == "running_var":
        return 1 + 0.2 * np.abs(n)
    if kind == "bias":
        return 0.01 * n
    if f"{stem}.running_mean" in keys:
        return 1 + 0.1 * n
    return n * np.sqrt(2 / np.prod(shape[1:])) * GAINS.get(key, 1.0)


def load_formula_weights(module: nn.Module) -> int:
    """Sets the weights; returns the chained crc32 over all of them in key order."""
    state = module.state_dict()
    crc = 0
    for key in sorted(state):
        if key.endswith("num_batches_tracked"):
            continue
        value = formula_value(key, tuple(state[key].shape), set(state)).astype(np.float32)
        crc = zlib.crc32(value.tobytes(), crc)
        state[key] = torch.from_numpy(value)
    module.load_state_dict(state)
    return crc


def reference_inputs(poses: np.ndarray[Any, Any]) -> ModelInputs:
    """The reference's frame: pictures with blue first, cameras in its key ego frame."""
    z = oracle("teacher_r18")
    blue_first = z["canvas_u8"][..., ::-1].astype(np.float32)
    images = (blue_first - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    post = np.tile(np.eye(3, dtype=np.float32), (6, 1, 1))
    post[:, :2, :2] = z["in_post_rots"][:, :2, :2]
    post[:, :2, 2] = z["in_post_trans"][:, :2]
    depth = np.zeros(z["gt_depth_shape"], np.float32)
    depth.reshape(-1)[z["gt_depth_idx"]] = z["gt_depth_val"]
    return ModelInputs(
        images=torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()[None],
        T_ego_camera=torch.from_numpy(poses)[None],
        intrinsics=torch.from_numpy(z["in_intrins"])[None],
        post_image=torch.from_numpy(post)[None],
        T_bda=torch.from_numpy(z["in_bda"])[None],
        points=(torch.from_numpy(z["in_points_ego"]),),
        depth=torch.from_numpy(depth)[None],
    )


@dataclass
class Run:
    """What one forward pass gave, by the stage names of the oracle."""

    reference: dict[str, Any]
    weights_crc: int
    cells: Tensor
    stages: dict[str, Tensor]
    sparse: dict[str, SparseTensor]
    voxels: SparseTensor | None


Hook = Callable[[nn.Module, Any, Any], None]


def run(name: str, file: str, names: dict[str, str], lists: dict[str, str]) -> Run:
    """Runs a network with hooks; the pooling is fed with the reference's cells."""
    reference = oracle(file)
    net = build_network(preset(name).with_reference_parity().network).eval()
    crc = load_formula_weights(net)
    inputs = reference_inputs(reference["sensor2keyego"])
    stages: dict[str, Tensor] = {"in_img": inputs.images[0]}
    sparse: dict[str, SparseTensor] = {}

    def keep(stage: str) -> Hook:
        def hook(_m: nn.Module, _i: Any, out: Any) -> None:
            if isinstance(out, SparseTensor):
                sparse[stage] = out
            elif isinstance(out, list):
                stages.update({f"{stage}{i}": t for i, t in enumerate(out)})
            else:
                stages[stage] = out

        return hook

    for path, stage in (names | lists).items():
        net.get_submodule(path).register_forward_hook(keep(stage))
    lift = net.img_view_transformer
    assert isinstance(lift, LssViewTransform)
    own_cells: list[Tensor] = []
    compute = lift.cells
    published = torch.from_numpy(reference["pool_cell"].astype(np.int64))[None]
    published[published == 65535] = -1

    def published_cells(inputs: ModelInputs, h: int, w: int) -> Tensor:
        own_cells.append(compute(inputs, h, w))
        return published

    lift.cells = published_cells  # type: ignore[method-assign]
    start = time.perf_counter()
    with torch.no_grad():
        stages["logits"] = net(inputs)
    print(f"{name}: {time.perf_counter() - start:.1f} s")
    logits, context = stages["depth_net"].split((88, 64), dim=1)
    h, w = logits.shape[-2:]
    frustum = lift.frustum(inputs, h, w)[0]
    stages |= {
        "depth_logits": logits,
        "context": context,
        "depth_prob": logits.softmax(1),
        "frustum_ego": frustum,
        "head_final_conv": stages["head_final_conv"].relu(),
    }
    encoder = getattr(net, "pts_middle_encoder", None)
    voxels = None
    if isinstance(encoder, LidarEncoder):
        assert inputs.points is not None
        voxels = encoder.voxels(inputs.points)
    return Run(reference, crc, own_cells[0][0], stages, sparse, voxels)


def assert_stage(r: Run, stage: str) -> None:
    ref, got = r.reference, r.stages[stage].double().numpy()
    assert got.shape == tuple(ref[f"{stage}__shape"])
    steps = tuple(slice(None, None, int(s)) for s in ref[f"{stage}__stride"])
    allowed = 1e-4 + 1e-5 * float(ref.get(f"{stage}__maxabs", 1))
    if stage == "depth_prob":
        allowed = 1e-4
    error = np.abs(got[steps] - ref[f"{stage}__sub"]).max()
    axes = tuple(i for i in range(got.ndim) if i != (4 if stage == "logits" else 1))
    mean_error = np.abs(got.mean(axis=axes) - ref[f"{stage}__chmean"]).max()
    print(f"{stage}: max error {error:.2e} of {np.abs(got).max():.3g} (allowed {allowed:.2e})")
    assert error <= allowed
    assert mean_error <= allowed
    assert np.linalg.norm(got) == pytest.approx(float(ref[f"{stage}__l2"]), rel=1e-5)


def assert_argmax(r: Run) -> None:
    ref = r.reference
    small = np.unpackbits(ref["small_margin"])[: ref["argmax"].size].astype(bool)
    got = r.stages["logits"][0].argmax(-1).numpy()
    wrong = (got != ref["argmax"]) & ~small.reshape(got.shape)
    assert wrong.sum() == 0


def assert_own_cells(r: Run) -> None:
    """Other float32 arithmetic may move a point that lies on a cell border, and no other."""
    own, published = r.cells, torch.from_numpy(r.reference["pool_cell"].astype(np.int64))
    published[published == 65535] = -1
    moved = own != published
    print(f"frustum points in another cell: {int(moved.sum())} of {moved.numel()}")
    assert int(moved.sum()) <= 60
    points = r.stages["frustum_ego"].movedim(1, -1)[moved].double()
    cell = (points - torch.tensor([-40.0, -40.0, -1.0])) / torch.tensor([0.4, 0.4, 6.4])
    to_border_m = ((cell - cell.round()).abs() * torch.tensor([0.4, 0.4, 6.4])).amin(dim=1)
    assert (to_border_m < 2e-4).all()


@pytest.fixture(scope="module")
def teacher() -> Iterator[Run]:
    yield run(
        "fusion_r18_occ3d",
        "teacher_r18",
        {
            "img_neck": "img_neck",
            "img_view_transformer.lidar_input_net": "lidar_input_net",
            "img_view_transformer.depth_net": "depth_net",
            "img_view_transformer": "cam_bev",
            "pts_middle_encoder.conv_input": "sp_conv_input",
            "pts_middle_encoder.encoder_layers.encoder_layer1": "sp_encoder_layer1",
            "pts_middle_encoder.encoder_layers.encoder_layer2": "sp_encoder_layer2",
            "pts_middle_encoder.encoder_layers.encoder_layer3": "sp_encoder_layer3",
            "pts_middle_encoder.encoder_layers.encoder_layer4": "sp_encoder_layer4",
            "pts_middle_encoder.conv_out": "sp_conv_out",
            "pts_middle_encoder": "lidar_bev",
            "occ_fuser": "fused_bev",
            "pts_neck": "secondfpn",
            "occ_head.final_conv": "head_final_conv",
        },
        {"img_backbone": "img_backbone", "pts_backbone": "second"},
    )


TEACHER_STAGES = [
    "in_img",
    "img_backbone0",
    "img_backbone1",
    "img_backbone2",
    "img_neck",
    "lidar_input_net",
    "depth_logits",
    "context",
    "depth_prob",
    "frustum_ego",
    "cam_bev",
    "lidar_bev",
    "fused_bev",
    "second0",
    "second1",
    "secondfpn",
    "head_final_conv",
    "logits",
]


def test_teacher_weights_are_those_of_the_reference(teacher: Run) -> None:
    assert teacher.weights_crc == int(teacher.reference["weights_crc32"])


@pytest.mark.parametrize("stage", TEACHER_STAGES)
def test_teacher_stage_equals_the_reference(teacher: Run, stage: str) -> None:
    assert_stage(teacher, stage)


def test_teacher_planes_are_neither_flipped_nor_transposed(teacher: Run) -> None:
    for stage, channel, name in (
        ("cam_bev", 5, "cam_bev_plane5"),
        ("lidar_bev", 2, "lidar_bev_plane2"),
        ("lidar_bev", 3, "lidar_bev_plane3"),
    ):
        got = teacher.stages[stage][0, channel].numpy()
        want = teacher.reference[name]
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    "stage",
    [
        "sp_conv_input",
        "sp_encoder_layer1",
        "sp_encoder_layer2",
        "sp_encoder_layer3",
        "sp_encoder_layer4",
        "sp_conv_out",
    ],
)
def test_sparse_stage_has_the_sites_and_features_of_the_reference(teacher: Run, stage: str) -> None:
    ref, got = teacher.reference, teacher.sparse[stage]
    Z, Y, X = (int(n) for n in ref[f"{stage}__grid"])
    assert got.spatial_shape == (Z, Y, X)
    assert len(got.coords) == int(ref[f"{stage}__n"])
    keys = ((got.coords[:, 1] * Y + got.coords[:, 2]) * X + got.coords[:, 3]).numpy()
    order = np.argsort(keys)
    assert zlib.crc32(keys[order].astype("<i8").tobytes()) == int(ref[f"{stage}__crc"])
    features = got.features.numpy()[order]
    step = int(ref[f"{stage}__rowstep"])
    allowed = 1e-4 + 1e-5 * np.abs(features).max()
    error = np.abs(features[::step] - ref[f"{stage}__feat"]).max()
    print(f"{stage}: max error {error:.2e} of {np.abs(features).max():.3g}")
    assert error <= allowed
    assert np.abs(features.astype(np.float64).mean(0) - ref[f"{stage}__chmean"]).max() <= allowed


def test_teacher_argmax_equals_the_reference(teacher: Run) -> None:
    assert_argmax(teacher)


def test_teacher_geometry_moves_only_points_on_cell_borders(teacher: Run) -> None:
    assert_own_cells(teacher)


@pytest.fixture(scope="module")
def student() -> Iterator[Run]:
    yield run(
        "flashocc_r50",
        "student_r50",
        {
            "img_neck": "img_neck",
            "img_view_transformer.depth_net": "depth_net",
            "img_view_transformer": "cam_bev",
            "img_bev_encoder_neck": "bev_neck",
            "occ_head.final_conv": "head_final_conv",
        },
        {"img_backbone": "img_backbone", "img_bev_encoder_backbone": "bev_backbone"},
    )


STUDENT_STAGES = [
    "img_backbone0",
    "img_backbone1",
    "img_neck",
    "depth_logits",
    "context",
    "depth_prob",
    "frustum_ego",
    "cam_bev",
    "bev_backbone0",
    "bev_backbone1",
    "bev_backbone2",
    "bev_neck",
    "head_final_conv",
    "logits",
]


def test_student_weights_are_those_of_the_reference(student: Run) -> None:
    assert student.weights_crc == int(student.reference["weights_crc32"])


@pytest.mark.parametrize("stage", STUDENT_STAGES)
def test_student_stage_equals_the_reference(student: Run, stage: str) -> None:
    assert_stage(student, stage)


def test_student_argmax_equals_the_reference(student: Run) -> None:
    assert_argmax(student)


def test_student_geometry_moves_only_points_on_cell_borders(student: Run) -> None:
    assert_own_cells(student)


def test_types_of_the_presets() -> None:
    assert isinstance(build_network(preset("fusion_r18_occ3d").network), FusionTeacher)
    assert isinstance(build_network(preset("flashocc_r50").network), CameraStudent)
