"""The camera student as an ONNX graph, for runtimes on board.

The graph is that of the network with its batch norms folded, one frame at a time, and uses only
standard operators of opset 18. What the cameras' geometry decides, which feature goes to which BEV
cell, is a set of index tables: constants of the graph (one rig) or further inputs of it (any rig
with as many cameras, see ``rig_tables``).

Pooling is written as gathers and one batched product: the samples of a cell are cut into chunks of
a fixed width, padded with weight zero; every chunk is a (1, width) x (width, C) product, cells of
several chunks add those up, and a last gather puts the cells in place. In onnxruntime 1.32 on CPU
(flashocc_r50 on a nuScenes rig, 302,000 samples into 40,000 cells, one thread) that takes 17 ms and
is right with any number of threads. Multiplying and summing up instead takes 25 ms. Cells grouped
by powers of two take 13 ms, but a table for each group would be a dozen inputs. ScatterElements
takes 340 ms; ScatterND with reduction is a data race there: with two threads and unsorted cells, 20
of 20 runs were wrong.

Legend: N cameras, C channels, D depth bins, (h, w) feature pixels, (Y, X) BEV cells, L heights,
P chunks, Q cells of several chunks, W most chunks of a cell, (X, Y, Z) voxels, K classes.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, logsigmoid

from datasets.errors import SetupError
from datasets.files.json_files import json_text
from datasets.model_inputs import IMAGENET_MEAN, IMAGENET_STD, InputSpec, ModelInputs
from models.inference.predictor import fold_batch_norms
from models.networks.camera_student import CameraConfig, CameraStudent
from models.networks.view_transform import Lift, LssConfig, LssViewTransform, PullViewTransform
from models.ops.bev_pool import PoolingPlan
from models.presets import Preset

OPSET = 18
IR_VERSION = 8
"""Of the file; the oldest that goes with the opset."""
FORMAT = "effocc-autolabel-onnx"
FORMAT_VERSION = "1"
INSTALL = "pip install -c constraints.txt -e '.[onnx]'"
LIFT_WIDTH = 16
"""Samples of a chunk: a level camera's column of feature pixels falls into one cell."""
PULL_WIDTH = 4
"""The bilinear taps in one picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """The cameras of a vehicle.

    Attributes:
        names: of the N cameras, in the order of the pictures.
        T_ego_camera: (N, 4, 4), camera (z forward, x right, y down) to ego, metres.
        intrinsics: (N, 3, 3), pixels of the stored picture.
        post_image: (N, 3, 3), stored pixel (u, v, 1) to network pixel.

    Raises:
        ValueError: the shapes do not belong together.
    """

    names: tuple[str, ...]
    T_ego_camera: Tensor
    intrinsics: Tensor
    post_image: Tensor

    def __post_init__(self) -> None:
        N = len(self.names)
        for name, side in (("T_ego_camera", 4), ("intrinsics", 3), ("post_image", 3)):
            shape = tuple(getattr(self, name).shape)
            if shape != (N, side, side):
                raise ValueError(f"{name} of {N} cameras must be {(N, side, side)}, not {shape}")

    @classmethod
    def of(cls, inputs: ModelInputs, names: Sequence[str]) -> Rig:
        """The rig of the first frame of a batch."""
        return cls(
            names=tuple(names),
            T_ego_camera=inputs.T_ego_camera[0],
            intrinsics=inputs.intrinsics[0],
            post_image=inputs.post_image[0],
        )

    def inputs(self, images: Tensor) -> ModelInputs:
        """One frame of this rig; images (1, N, 3, H, W)."""
        return ModelInputs(
            images=images,
            T_ego_camera=self.T_ego_camera.float()[None],
            intrinsics=self.intrinsics.float()[None],
            post_image=self.post_image.float()[None],
            T_bda=torch.eye(4)[None],
            points=None,
            depth=None,
        )

    def to_json(self) -> dict[str, object]:
        return {
            "names": list(self.names),
            "T_ego_camera": self.T_ego_camera.tolist(),
            "intrinsics": self.intrinsics.tolist(),
            "post_image": self.post_image.tolist(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RigTables:
    """Which features make up each BEV cell; the further inputs of a graph for any rig.

    Attributes:
        samples: (P, width) int32, for the depth lift: which (n, h, w, d) of the depth
            probabilities; N h w D pads. None for pull.
        weights: (P, width) float32, for pull: of each bilinear tap; 0 pads. None for the lift.
        rows: (P, width) int32, which feature pixel (n, h, w). The last chunk is all padding.
        sums: (Q, W) int32, chunks of each cell that has several; P - 1 pads.
        places: (cells,) int32, where each cell (y, x, l) is found among the P chunks and Q sums.
    """

    samples: Tensor | None
    weights: Tensor | None
    rows: Tensor
    sums: Tensor
    places: Tensor

    def named(self) -> dict[str, Tensor]:
        """The four tables of this lift, by the names of the graph's inputs."""
        first = {"samples": self.samples, "weights": self.weights}
        present = {name: table for name, table in first.items() if table is not None}
        return {**present, "rows": self.rows, "sums": self.sums, "places": self.places}


def camera_config(preset: Preset) -> CameraConfig:
    """The shape of a student that can be exported.

    Raises:
        SetupError: the preset reads LiDAR or earlier frames.
    """
    if isinstance(preset.network, CameraConfig):
        return preset.network
    inputs = "LiDAR" if preset.inputs.lidar else "earlier frames as well"
    raise SetupError(
        f"preset {preset.name!r} reads {inputs}: only camera students of one frame go to ONNX"
    )


@torch.no_grad()
def rig_tables(preset: Preset, rig: Rig) -> RigTables:
    """The tables of a rig, as a graph exported with calibration as input reads them.

    Cells and taps are computed by the network's own code, so they are those of PyTorch.

    Raises:
        SetupError: the preset is no camera student of one frame.
    """
    config = camera_config(preset)
    H, W = preset.inputs.height, preset.inputs.width
    inputs = rig.inputs(torch.zeros(1).expand(1, len(rig.names), 3, H, W))
    stride = config.camera.backbone.finest_stride
    h, w = -(-H // stride), -(-W // stride)
    lift = config.camera.lift
    if isinstance(lift, LssConfig):
        plan = Lift(lift).plan(inputs, h, w)
        assert plan.samples is not None
        chunks, tables = _chunks(plan, LIFT_WIDTH)
        n_samples = len(rig.names) * h * w * lift.n_depths
        samples = _padded(plan.samples, n_samples)[chunks].int()
        return RigTables(samples=samples, weights=None, rows=_rows(plan, chunks), **tables)
    taps, plan = PullViewTransform(lift, stride).taps(inputs, h, w)
    chunks, tables = _chunks(plan, PULL_WIDTH)
    weights = _padded(taps, 0)[chunks]
    return RigTables(samples=None, weights=weights, rows=_rows(plan, chunks), **tables)


def _chunks(plan: PoolingPlan, width: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Positions in the plan of every chunk's samples, (P, width); one past its end pads.

    Also ``sums`` and ``places`` of ``RigTables``.
    """
    counts = plan.offsets.diff()
    chunks = (counts + width - 1) // width
    first = chunks.cumsum(0) - chunks
    cell = torch.arange(len(counts)).repeat_interleave(chunks)
    empty, end = len(cell), len(plan.rows)
    begin = plan.offsets[cell] + (torch.arange(empty) - first[cell]) * width
    positions = begin[:, None] + torch.arange(width)
    positions = torch.where(positions < plan.offsets[cell + 1][:, None], positions, end)
    positions = torch.cat((positions, positions.new_full((1, width), end)))

    split = (chunks > 1).nonzero()[:, 0]
    column = torch.arange(max(2, int(chunks.max())))
    sums = first[split][:, None] + column
    sums = torch.where(column < chunks[split][:, None], sums, empty)
    sums = torch.cat((sums, sums.new_full((1, len(column)), empty)))  # never without a row
    places = torch.where(chunks == 1, first, empty)
    places[split] = empty + 1 + torch.arange(len(split))
    return positions, {"sums": sums.int(), "places": places.int()}


def _padded(values: Tensor, filler: int) -> Tensor:
    return torch.cat((values, values.new_full((1,), filler)))


def _rows(plan: PoolingPlan, chunks: Tensor) -> Tensor:
    return _padded(plan.rows, 0)[chunks].int()


class OnboardStudent(nn.Module):
    """The student with its geometry in tables. Computes what the student does.

    Args:
        student: on the CPU; its batch norms are folded in a copy.
        tables: those of the one rig; None: they are inputs.
        argmax: give classes instead of logits.
    """

    def __init__(
        self, student: CameraStudent, *, tables: RigTables | None = None, argmax: bool = False
    ) -> None:
        super().__init__()
        self.student = fold_batch_norms(student)
        self.student.occ_head.predicter[1] = _Softplus()
        self.lift = student.config.camera.lift
        self.argmax = argmax
        for name, table in ({} if tables is None else tables.named()).items():
            self.register_buffer(name, table)

    def forward(
        self,
        images: Tensor,  # (1, N, 3, H, W) float32, normalised
        first: Tensor | None = None,  # (P, width): samples or weights of ``RigTables``
        rows: Tensor | None = None,  # (P, width)
        sums: Tensor | None = None,  # (Q, W)
        places: Tensor | None = None,  # (Y X L,)
    ) -> Tensor:
        """Logits (1, X, Y, Z, K) float32, or classes (1, X, Y, Z) uint8."""
        student = self.student
        features: Tensor = student.img_neck(student.img_backbone(images.flatten(0, 1)))
        if isinstance(self.lift, LssConfig):
            samples = self.get_buffer("samples") if first is None else first
            weights, features = self._depth_and_context(features, self.lift)
            first = embedding(samples, weights)
        elif first is None:
            first = self.get_buffer("weights")
        rows = self.get_buffer("rows") if rows is None else rows
        sums = self.get_buffer("sums") if sums is None else sums
        places = self.get_buffer("places") if places is None else places

        C = features.shape[1]
        values = embedding(rows, features.permute(0, 2, 3, 1).reshape(-1, C))  # (P, width, C)
        chunks = (first.reshape(-1, 1, rows.shape[1]) @ values).squeeze(1)
        cells = embedding(places, torch.cat((chunks, embedding(sums, chunks).sum(dim=1))))
        X, Y, _ = self.lift.grid.shape
        bev = cells.view(1, Y, X, -1).permute(0, 3, 1, 2)
        if isinstance(student.img_view_transformer, PullViewTransform):
            bev = student.img_view_transformer.with_places(bev)
        bev = student.img_bev_encoder_neck(student.img_bev_encoder_backbone(bev))
        logits: Tensor = student.occ_head(bev)
        return logits.argmax(dim=-1).to(torch.uint8) if self.argmax else logits

    def _depth_and_context(self, features: Tensor, lift: LssConfig) -> tuple[Tensor, Tensor]:
        """(N h w D + 1, 1) depth probabilities, the last one zero, and (N, C, h, w) context."""
        view = self.student.img_view_transformer
        assert isinstance(view, LssViewTransform)
        output: Tensor = view.depth_net(features)
        logits, context = output[:, : lift.n_depths], output[:, lift.n_depths :]
        weights = logits.softmax(dim=1).permute(0, 2, 3, 1).reshape(-1, 1)
        return torch.cat((weights, weights.new_zeros(1, 1))), context


class _Softplus(nn.Module):
    """Softplus in operators that onnxruntime vectorises: a third of the time of its own one."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu() - logsigmoid(x.abs())


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxSummary:
    """What was written.

    Attributes:
        inputs, outputs: type and shape by name; a word is a size that follows from the rig.
        metadata: the file's ``metadata_props``.
    """

    inputs: dict[str, str]
    outputs: dict[str, str]
    metadata: dict[str, str]


def write_onnx(
    path: Path,
    student: CameraStudent,
    preset: Preset,
    rig: Rig,
    *,
    fixed_rig: bool,
    argmax: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> OnnxSummary:
    """Export a student to one ONNX file, weights inside.

    Args:
        student: on the CPU, below protobuf's 2 GB.
        preset: what the student is.
        rig: the cameras; for a graph for any rig only their number counts.
        fixed_rig: fold the rig's tables into the graph; otherwise they are its inputs.
        argmax: the output is ``classes`` (1, X, Y, Z) uint8 instead of ``logits`` (1, X, Y, Z, K).
        metadata: further entries for ``metadata_props``.

    Raises:
        SetupError: the preset is no camera student of one frame, or the extra ``onnx`` is not
            installed.
    """
    tables = rig_tables(preset, rig)
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript")):
        raise SetupError(f"exporting to ONNX needs the extra 'onnx': {INSTALL}")
    module = OnboardStudent(student, tables=tables if fixed_rig else None, argmax=argmax).eval()
    spec, N = preset.inputs, len(rig.names)
    examples = {"images": torch.zeros(1, N, 3, spec.height, spec.width)}
    sizes: dict[str, dict[int, str]] = {}
    if not fixed_rig:
        for name, table in tables.named().items():  # a size of 1 would be taken for a constant
            examples[name] = torch.zeros([max(n, 2) for n in table.shape], dtype=table.dtype)
            sizes[name] = {0: "chunks"}
        sizes["sums"], sizes["places"] = {0: "split_cells", 1: "chunks_per_cell"}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's own internals
        program = torch.onnx.export(
            module,
            tuple(examples.values()),
            input_names=list(examples),
            output_names=["classes" if argmax else "logits"],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=tuple(sizes.get(name, {}) for name in examples),
            verbose=False,
        )
    assert program is not None
    graph = program.model.graph
    for part in (*graph, *graph.inputs, *graph.outputs):
        part.metadata_props.clear()  # stack traces, with the paths of this machine
    inputs = {str(v.name): _described(v) for v in graph.inputs}
    outputs = {str(v.name): _described(v) for v in graph.outputs}
    described = _metadata(preset, rig if fixed_rig else None, N) | dict(metadata or {})
    described |= {"inputs": json_text(inputs), "outputs": json_text(outputs)}
    program.model.ir_version = IR_VERSION
    program.model.metadata_props.update(described)
    program.save(path)
    return OnnxSummary(inputs=inputs, outputs=outputs, metadata=described)


def _described(value: Any) -> str:
    return f"{value.dtype.numpy()} ({', '.join(str(n) for n in value.shape)})"


def _metadata(preset: Preset, rig: Rig | None, N: int) -> dict[str, str]:
    """What someone who has nothing but the file must know; lists and tables as JSON."""
    spec = preset.inputs
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "opset": str(OPSET),
        "preset": preset.name,
        "calibration": "input" if rig is None else "constant",
        "cameras": str(N),
        "picture_size": json_text({"height": spec.height, "width": spec.width}),
        "picture_fit": "resized by width (bicubic), bottom rows kept",
        "channels": "blue, green, red" if spec.reference_parity else "red, green, blue",
        "normalisation": "(value 0..255 - mean) / std, by channel in the order of 'channels'",
        "mean": json_text(IMAGENET_MEAN),
        "std": json_text(IMAGENET_STD),
        "output_axes": "frame, X, Y, Z and for logits class",
        "grid": json_text(preset.grid.to_json()),
        "frame": _frame(spec),
        "class_names": json_text(preset.taxonomy.names),
        "free_id": str(preset.taxonomy.free_id),
    }
    if rig is not None:
        metadata |= {"camera_order": json_text(rig.names), "rig": json_text(rig.to_json())}
    return metadata


def _frame(spec: InputSpec) -> str:
    if spec.frame == "lidar":
        return "axes of the LiDAR at its key-frame"
    moment = "the first camera's picture" if spec.reference_parity else "the LiDAR key-frame"
    return f"vehicle at the time of {moment}: X forward, Y left, Z up"
