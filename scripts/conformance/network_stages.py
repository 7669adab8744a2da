"""What the published networks put out, stage by stage, and how far ours are from it.

An oracle folder holds numbers that the published code gave for one real nuScenes key-frame, with
weights made by a formula from each key's name: ``teacher_r18.npz`` (with the frame itself) and
``student_r50.npz``. Its README explains every array and gives the reference's own float32 noise,
which the tolerances here follow.

Legend: B frames, N cameras, C channels, D depth bins, (h, w) feature pixels, (X, Y, Z) voxels,
K classes.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from datasets.errors import SetupError
from datasets.files.bounded_files import npz_member, open_npz, parsing
from datasets.geometry.grid import VoxelGrid
from datasets.model_inputs import IMAGENET_MEAN, IMAGENET_STD, ModelInputs
from models.networks.view_transform import LssViewTransform
from models.ops.sparse_conv import SparseTensor
from models.presets import OccupancyNet

Arrays = Mapping[str, NDArray[Any]]
GAINS = {
    "img_view_transformer.depth_net.6.weight": 0.1,
    "img_view_transformer.depth_net.weight": 0.01,
    "pts_middle_encoder.conv_out.0.weight": 8.0,
    "img_bev_encoder_neck.up2.4.weight": 0.1,
}
DROPPED = 65535
"""In ``pool_cell``: a frustum point outside the grid."""
MAX_MOVED_POINTS, MAX_BORDER_M = 60, 2e-4
"""How many frustum points other float32 arithmetic may move, and how near a border they lie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A network whose outputs are known.

    Attributes:
        title: for people; preset: its name here; file: stem of its npz file.
        outputs: module -> stage; a module that gives several maps gives stages 0, 1, ...
        dense, sparse: the stages to compare, in the order of the data flow.
    """

    title: str
    preset: str
    file: str
    outputs: Mapping[str, str]
    dense: tuple[str, ...]
    sparse: tuple[str, ...] = ()


_SPARSE = {
    "pts_middle_encoder.conv_input": "sp_conv_input",
    "pts_middle_encoder.encoder_layers.encoder_layer1": "sp_encoder_layer1",
    "pts_middle_encoder.encoder_layers.encoder_layer2": "sp_encoder_layer2",
    "pts_middle_encoder.encoder_layers.encoder_layer3": "sp_encoder_layer3",
    "pts_middle_encoder.encoder_layers.encoder_layer4": "sp_encoder_layer4",
    "pts_middle_encoder.conv_out": "sp_conv_out",
}
_LIFT = {
    "img_neck": "img_neck",
    "img_view_transformer.depth_net": "depth_net",
    "img_view_transformer": "cam_bev",
}
_LIFT_STAGES = ("depth_logits", "context", "depth_prob", "frustum_ego", "cam_bev")
TEACHER = Case(
    title="Teacher R18",
    preset="fusion_r18_occ3d",
    file="teacher_r18",
    outputs=_LIFT
    | _SPARSE
    | {
        "img_backbone": "img_backbone",
        "img_view_transformer.lidar_input_net": "lidar_input_net",
        "pts_middle_encoder": "lidar_bev",
        "occ_fuser": "fused_bev",
        "pts_backbone": "second",
        "pts_neck": "secondfpn",
        "occ_head.final_conv": "head_final_conv",
    },
    dense=(
        "in_img",
        "img_backbone0",
        "img_backbone1",
        "img_backbone2",
        "img_neck",
        "lidar_input_net",
        *_LIFT_STAGES,
        "lidar_bev",
        "fused_bev",
        "second0",
        "second1",
        "secondfpn",
        "head_final_conv",
        "logits",
    ),
    sparse=tuple(_SPARSE.values()),
)
STUDENT = Case(
    title="FlashOcc R50",
    preset="flashocc_r50",
    file="student_r50",
    outputs=_LIFT
    | {
        "img_backbone": "img_backbone",
        "img_bev_encoder_backbone": "bev_backbone",
        "img_bev_encoder_neck": "bev_neck",
        "occ_head.final_conv": "head_final_conv",
    },
    dense=(
        "img_backbone0",
        "img_backbone1",
        "img_neck",
        *_LIFT_STAGES,
        "bev_backbone0",
        "bev_backbone1",
        "bev_backbone2",
        "bev_neck",
        "head_final_conv",
        "logits",
    ),
)


def oracle_folder(environment: Mapping[str, str]) -> Path:
    """``AUTOLABEL_ORACLE`` of the environment, or ``shared/oracle`` beside the project."""
    beside = Path(__file__).resolve().parents[2] / ".." / "shared" / "oracle"
    return Path(environment.get("AUTOLABEL_ORACLE", beside))


def load_arrays(folder: Path, file: str) -> dict[str, NDArray[Any]]:
    """All arrays of an npz file of the oracle.

    Raises:
        SetupError: there is no such file, it is damaged, or an array is larger than
            ``MAX_ARRAY_BYTES``.
    """
    path = folder / f"{file}.npz"
    if not path.is_file():
        raise SetupError(f"no reference outputs {path}: set AUTOLABEL_ORACLE to the oracle folder")
    try:
        with parsing(), open_npz(path) as arrays:
            return {name: npz_member(arrays, name) for name in arrays.files}
    except (OSError, ValueError) as error:
        raise SetupError(f"{path}: damaged reference outputs: {error}") from error


def formula_value(key: str, shape: tuple[int, ...], keys: set[str]) -> NDArray[np.float64]:
    """The value of one entry of a state dict with these keys; ``num_batches_tracked`` has none."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    n: NDArray[np.float64] = generator.standard_normal(shape)
    stem, kind = key.rsplit(".", 1)
    if kind == "running_mean":
        return 0.1 * n
    if kind == "running_var":
        return 1 + 0.2 * np.abs(n)
    if kind == "bias":
        return 0.01 * n
    if f"{stem}.running_mean" in keys:
        return 1 + 0.1 * n
    fan_in = int(np.prod(shape[1:]))
    return n * float(np.sqrt(2 / fan_in)) * GAINS.get(key, 1.0)


def load_formula_weights(module: nn.Module) -> int:
    """Sets the weights; returns the chained crc32 over all of them in key order.

    The published networks' is ``weights_crc32`` of their arrays.
    """
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


def reference_depth(frame: Arrays) -> NDArray[np.float32]:
    """(N, H, W) LiDAR depth maps in metres, 0 without return; from the teacher's arrays."""
    depth = np.zeros(frame["gt_depth_shape"], np.float32)
    depth.reshape(-1)[frame["gt_depth_idx"]] = frame["gt_depth_val"]
    return depth


def reference_inputs(frame: Arrays, T_ego_camera: NDArray[np.float32]) -> ModelInputs:
    """The reference's frame: images with blue first, cameras in its key ego frame.

    Args:
        frame: the teacher's arrays, which hold the inputs of both networks.
        T_ego_camera: (N, 4, 4), ``sensor2keyego`` of the network's own arrays.
    """
    blue_first = frame["canvas_u8"][..., ::-1].astype(np.float32)
    mean, std = (np.array(c, np.float32) for c in (IMAGENET_MEAN, IMAGENET_STD))
    images = (blue_first - mean) / std
    post = np.tile(np.eye(3, dtype=np.float32), (len(images), 1, 1))
    post[:, :2, :2] = frame["in_post_rots"][:, :2, :2]
    post[:, :2, 2] = frame["in_post_trans"][:, :2]
    return ModelInputs(
        images=torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()[None],
        T_ego_camera=torch.from_numpy(T_ego_camera)[None],
        intrinsics=torch.from_numpy(frame["in_intrins"])[None],
        post_image=torch.from_numpy(post)[None],
        T_bda=torch.from_numpy(frame["in_bda"])[None],
        points=(torch.from_numpy(frame["in_points_ego"]),),
        depth=torch.from_numpy(reference_depth(frame))[None],
    )


def published_cells(arrays: Arrays) -> Tensor:
    """BEV cell of every frustum point, -1 outside: (1, N, D, h, w) int64, as the lift has them."""
    cells = torch.from_numpy(arrays["pool_cell"].astype(np.int64))[None]
    return torch.where(cells == DROPPED, -1, cells)


def with_cells(network: OccupancyNet, cells: Tensor) -> OccupancyNet:
    """A copy that pools frustum points into these cells, whatever the inputs' geometry.

    Args:
        network: one that has not run yet, since a lift keeps the pooling of the last geometries.
        cells: (B, N, D, h, w) int64.
    """
    network = copy.deepcopy(network)
    lift_of(network).cells = lambda inputs, h, w: cells.to(inputs.images.device)  # type: ignore[method-assign]
    return network


def lift_of(network: OccupancyNet) -> LssViewTransform:
    """The lift of a network that has this kind."""
    lift = network.img_view_transformer
    assert isinstance(lift, LssViewTransform)
    return lift


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """What one forward pass gave, by the stage names of the oracle."""

    dense: dict[str, Tensor]
    sparse: dict[str, SparseTensor]


def run_stages(network: OccupancyNet, case: Case, inputs: ModelInputs) -> Outputs:
    """One forward pass of a network in eval mode, in float32 without TF32, with every stage kept.

    Works on networks with folded batch norms too: their modules have the same names.
    """
    dense: dict[str, Tensor] = {"in_img": inputs.images[0]}
    sparse: dict[str, SparseTensor] = {}

    def keep(stage: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, out: Any) -> None:
            if isinstance(out, SparseTensor):
                sparse[stage] = out
            elif isinstance(out, list):
                dense.update({f"{stage}{i}": t for i, t in enumerate(out)})
            else:
                dense[stage] = out

        return hook

    hooks = [
        network.get_submodule(module).register_forward_hook(keep(stage))
        for module, stage in case.outputs.items()
    ]
    try:
        dense["logits"] = exact_logits(network, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    lift = lift_of(network)
    depth_and_context = dense.pop("depth_net")
    D = lift.config.n_depths
    dense["depth_logits"], dense["context"] = depth_and_context[:, :D], depth_and_context[:, D:]
    dense["depth_prob"] = dense["depth_logits"].softmax(dim=1)
    h, w = depth_and_context.shape[-2:]
    dense["frustum_ego"] = lift.frustum(inputs, h, w)[0]
    dense["head_final_conv"] = dense["head_final_conv"].relu()
    return Outputs(dense=dense, sparse=sparse)


@torch.inference_mode()
def exact_logits(network: OccupancyNet, inputs: ModelInputs) -> Tensor:
    """(B, X, Y, Z, K) in float32, without TF32."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        logits: Tensor = network(inputs)
    return logits


@dataclass(frozen=True, slots=True, kw_only=True)
class StageError:
    """How far a stage is from the published one, of which a sample and sums are known.

    Attributes:
        stage: its name.
        error: largest absolute difference among the sampled values.
        compared: how many values that are.
        channel_error: largest difference of a channel's mean over the whole stage.
        norm_error: relative difference of the whole stage's Euclidean norm.
        largest: largest absolute published value (of a sparse stage: in the sample).
        allowed: for ``error`` and ``channel_error``.
        sites_equal: whether a sparse stage is active at exactly the published sites, else None.
    """

    stage: str
    error: float
    compared: int
    channel_error: float
    norm_error: float
    largest: float
    allowed: float
    sites_equal: bool | None = None

    @property
    def relative(self) -> float:
        return self.error / self.largest

    @property
    def ok(self) -> bool:
        """Whether the stage is the published one within float32 noise."""
        within = self.error <= self.allowed and self.channel_error <= self.allowed
        return within and self.norm_error <= 1e-5 and self.sites_equal is not False


def compare_stage(arrays: Arrays, stage: str, output: Tensor) -> StageError:
    """A dense stage.

    Raises:
        ValueError: it has another shape than the published one.
    """
    got = output.double().cpu().numpy()
    if got.shape != tuple(arrays[f"{stage}__shape"]):
        raise ValueError(f"{stage}: shape {got.shape}, published {arrays[f'{stage}__shape']}")
    steps = tuple(slice(None, None, int(s)) for s in arrays[f"{stage}__stride"])
    channel_axis = 4 if stage == "logits" else 1
    others = tuple(i for i in range(got.ndim) if i != channel_axis)
    largest = float(arrays[f"{stage}__maxabs"])
    return _stage_error(
        arrays,
        stage,
        sample=got[steps],
        published=arrays[f"{stage}__sub"],
        means=got.mean(axis=others),
        norm=float(np.linalg.norm(got)),
        largest=largest,
        allowed=1e-4 if stage == "depth_prob" else 1e-4 + 1e-5 * largest,
    )


def compare_sparse_stage(arrays: Arrays, stage: str, output: SparseTensor) -> StageError:
    """A sparse stage; where the sites differ, nothing else is compared and the errors are inf."""
    Z, Y, X = (int(n) for n in arrays[f"{stage}__grid"])
    coords = output.coords.cpu()
    sites = ((coords[:, 1] * Y + coords[:, 2]) * X + coords[:, 3]).numpy()
    order = np.argsort(sites)
    sites_equal = (
        output.spatial_shape == (Z, Y, X)
        and len(sites) == int(arrays[f"{stage}__n"])
        and zlib.crc32(sites[order].astype("<i8").tobytes()) == int(arrays[f"{stage}__crc"])
    )
    published = arrays[f"{stage}__feat"]
    largest = float(np.abs(published).max())
    allowed = 1e-4 + 1e-5 * largest
    if not sites_equal:
        return StageError(
            stage=stage,
            error=np.inf,
            compared=0,
            channel_error=np.inf,
            norm_error=np.inf,
            largest=largest,
            allowed=allowed,
            sites_equal=False,
        )
    features = output.features.double().cpu().numpy()[order]
    return _stage_error(
        arrays,
        stage,
        sample=features[:: int(arrays[f"{stage}__rowstep"])],
        published=published,
        means=features.mean(axis=0),
        norm=float(np.linalg.norm(features)),
        largest=largest,
        allowed=allowed,
        sites_equal=True,
    )


def _stage_error(
    arrays: Arrays,
    stage: str,
    *,
    sample: NDArray[np.float64],
    published: NDArray[np.float32],
    means: NDArray[np.float64],
    norm: float,
    largest: float,
    allowed: float,
    sites_equal: bool | None = None,
) -> StageError:
    published_norm = float(arrays[f"{stage}__l2"])
    return StageError(
        stage=stage,
        error=float(np.abs(sample - published).max()),
        compared=published.size,
        channel_error=float(np.abs(means - arrays[f"{stage}__chmean"]).max()),
        norm_error=abs(norm - published_norm) / published_norm,
        largest=largest,
        allowed=allowed,
        sites_equal=sites_equal,
    )


def compare_stages(arrays: Arrays, case: Case, outputs: Outputs) -> list[StageError]:
    """All stages of a case, sparse ones first."""
    return [compare_sparse_stage(arrays, s, outputs.sparse[s]) for s in case.sparse] + [
        compare_stage(arrays, s, outputs.dense[s]) for s in case.dense
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedPoints:
    """Frustum points that fall into another cell than published.

    Attributes:
        moved: how many, of ``points``.
        border_m: largest distance of one of them from the nearest cell border, metres.
    """

    moved: int
    points: int
    border_m: float

    @property
    def ok(self) -> bool:
        """Other float32 arithmetic moves a few points that lie on a border, and no other."""
        return self.moved <= MAX_MOVED_POINTS and self.border_m <= MAX_BORDER_M


def compare_cells(
    arrays: Arrays,
    cells: Tensor,  # (1, N, D, h, w) int64, -1 outside
    frustum: Tensor,  # (N, 3, D, h, w) metres, ego frame
    grid: VoxelGrid,
) -> MovedPoints:
    """The lift's own geometry: ``LssViewTransform.cells`` and ``frustum``, on its BEV grid."""
    moved = (cells.cpu() != published_cells(arrays))[0]
    points = frustum.movedim(1, -1).cpu()[moved].double()
    size_m = points.new_tensor(grid.size_m)
    cell = (points - points.new_tensor(grid.min_m)) / size_m
    border_m = ((cell - cell.round()).abs() * size_m).amin(dim=1)
    return MovedPoints(
        moved=int(moved.sum()),
        points=moved.numel(),
        border_m=float(border_m.max()) if len(border_m) else 0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SameClass:
    """Voxels whose most likely class is the published one.

    Attributes:
        same: how many, of all ``voxels``.
        clear_same: how many, of the ``clear`` voxels, whose best two published logits differ by
            1e-3 at least.
    """

    same: int
    voxels: int
    clear_same: int
    clear: int

    @property
    def share(self) -> float:
        return self.same / self.voxels

    @property
    def clear_share(self) -> float:
        return self.clear_same / self.clear


def compare_classes(arrays: Arrays, logits: Tensor) -> SameClass:
    """Logits (1, X, Y, Z, K) of a whole network, every voxel."""
    published = arrays["argmax"]
    equal = logits[0].argmax(dim=-1).cpu().numpy() == published
    small = np.unpackbits(arrays["small_margin"], count=published.size).astype(bool)
    clear = ~small.reshape(published.shape)
    return SameClass(
        same=int(equal.sum()),
        voxels=equal.size,
        clear_same=int(equal[clear].sum()),
        clear=int(clear.sum()),
    )
