"""Weights of the published EFFOcc and FlashOcc code (PyTorch files), as our networks take them.

Our networks bear the official names, so importing is: find the state dict, take the part that the
preset is, bring sparse kernels into the layout of spconv 2, and refuse whatever does not fit
exactly. Files are read by PyTorch's restricted unpickler: nothing in them can run code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from datasets.errors import SetupError
from models.checkpoints.checkpoint import FORMAT, read_safetensors
from models.checkpoints.pickled import load_pickled
from models.networks.swin import SwinConfig, from_official
from models.ops.sparse_conv import SparseConv3d
from models.presets import Preset, build_network

TEACHER = "teacher_model."
"""A distilled student's file also holds its frozen teacher, under this prefix."""

GEOMETRY_KEYS = {f"img_view_transformer.{name}" for name in ("dx", "bx", "nx", "frustum")}
"""Constants that older files carry and no network reads."""

FIRST_KERNEL = "pts_middle_encoder.conv_input.0.weight"
_NORM_COUNT = ".num_batches_tracked"
_LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialFile:
    """What a file holds.

    Attributes:
        tensors: its state dict as stored, on the CPU.
        epoch: passes over the data that the weights have seen, if it says so.
        kind: what sort of file it is, in words.
    """

    tensors: dict[str, Tensor]
    epoch: int | None
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A state dict that fits a preset's network.

    Attributes:
        state: every key of the network; contiguous, weights float32.
        notes: what was taken, left out or changed, a line each.
    """

    state: dict[str, Tensor]
    notes: tuple[str, ...]


def read_checkpoint(path: Path) -> OfficialFile:
    """The state dict of an mmcv checkpoint, of its EMA twin, or a bare one; or a safetensors file.

    Raises:
        SetupError: the file is missing, damaged, no checkpoint, this toolkit's own, or needs code
            to run in order to be read.
    """
    if not path.is_file():
        raise SetupError(f"{path}: no such checkpoint file")
    if path.suffix == ".safetensors":
        return OfficialFile(tensors=_read_safetensors(path), epoch=None, kind="safetensors file")
    content = _read_pickle(path)
    if not isinstance(content, dict):
        raise SetupError(f"{path}: not a checkpoint, holds a {type(content).__name__}")
    tensors = content.get("state_dict", content)
    if not isinstance(tensors, dict) or not tensors:
        raise SetupError(f"{path}: its state dict is empty or none at all")
    others = [k for k, v in tensors.items() if not (isinstance(k, str) and _is_plain(v))]
    if others:
        raise SetupError(
            f"{path}: neither a state dict nor a file with one under 'state_dict'; "
            f"not plain tensors: {_some(str(k) for k in others)}"
        )
    kind, epoch = _provenance(content)
    return OfficialFile(tensors={k: v.detach() for k, v in tensors.items()}, epoch=epoch, kind=kind)


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    )


def _provenance(content: Mapping[str, object]) -> tuple[str, int | None]:
    if "state_dict" not in content:
        return "bare state dict", None
    if "updates" in content:  # the EMA hook counts epochs from zero
        epoch = content.get("epoch")
        return "EMA checkpoint", epoch + 1 if isinstance(epoch, int) else None
    meta = content.get("meta")
    epoch = meta.get("epoch") if isinstance(meta, dict) else None
    return "checkpoint", epoch if isinstance(epoch, int) else None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    metadata, tensors = read_safetensors(path)
    if metadata.get("format") == FORMAT:
        raise SetupError(f"{path}: written by this toolkit already, nothing to import")
    return tensors


class _Inert:
    """Stands for numpy's scalars, arrays and types beside the weights: built, never looked at."""

    def __new__(cls, *_: object) -> _Inert:
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None: ...


_NUMPY_NAMES = (
    "numpy.dtype",
    "numpy.ndarray",
    *(f"numpy.{m}.multiarray.{f}" for m in ("core", "_core") for f in ("scalar", "_reconstruct")),
)


def _read_pickle(path: Path) -> object:
    try:
        return load_pickled(path, [(_Inert, name) for name in _NUMPY_NAMES])
    except (OSError, ValueError) as error:
        message = str(error)
        if wanted := re.search(r"GLOBAL (\S+)", message):
            raise SetupError(
                f"{path}: holds a {wanted[1]}, and reading that could run code from the file. If "
                "you trust its origin, strip it where it was written: "
                "c = torch.load(FILE, 'cpu', weights_only=False); "
                "torch.save({'state_dict': c['state_dict']}, OUT)"
            ) from error
        reason = message.rpartition("WeightsUnpickler error: ")[2].strip().split("\n")[0]
        raise SetupError(f"{path}: damaged or no PyTorch file: {reason}") from error


def convert(tensors: Mapping[str, Tensor], preset: Preset) -> Converted:
    """Official tensors as the state dict of a preset's network.

    A preset that reads LiDAR takes the teacher out of a distillation file, any other preset the
    student. Sparse kernels (kz, ky, kx, in, out) of spconv 1 and mmcv become (out, kz, ky, kx,
    in); the first one tells which layout a file has, and all must have it.

    Raises:
        SetupError: keys are missing, left over or of another shape or kind, or values are not
            finite; the message lists them.
    """
    with torch.device("meta"):
        network = build_network(preset.network)
    want = network.state_dict()
    notes: list[str] = []

    state = _without_wrapper(tensors, notes)
    state = _own_part(state, notes, teacher=preset.inputs.lidar)
    state = _without_geometry(state, notes)
    state = _own_swin_names(state, preset, notes)
    state = _with_norm_counts(state, want, notes)

    kernels = {
        f"{name}.weight" for name, m in network.named_modules() if isinstance(m, SparseConv3d)
    }
    shapes = {key: tuple(t.shape) for key, t in want.items()}
    first = state.get(FIRST_KERNEL)
    spconv1 = first is not None and tuple(first.shape) == _spconv1(shapes.get(FIRST_KERNEL, ()))
    if spconv1:
        shapes |= {key: _spconv1(shapes[key]) for key in kernels}
    _check(state, want, shapes)
    if spconv1:
        state |= {key: state[key].permute(4, 0, 1, 2, 3) for key in kernels}
        notes.append(f"{len(kernels)} sparse kernels: spconv 1 layout permuted to spconv 2")
    return Converted(state=_float32(state, want, notes), notes=tuple(notes))


def _without_wrapper(tensors: Mapping[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    state, prefix = dict(tensors), "module."
    if state and all(key.startswith(prefix) for key in state):
        notes.append(f"prefix {prefix!r} removed from every key")
        return {key.removeprefix(prefix): t for key, t in state.items()}
    return state


def _own_part(state: dict[str, Tensor], notes: list[str], *, teacher: bool) -> dict[str, Tensor]:
    inside = {k.removeprefix(TEACHER): t for k, t in state.items() if k.startswith(TEACHER)}
    if not inside:
        return state
    outside = {k: t for k, t in state.items() if not k.startswith(TEACHER)}
    selected, dropped = (inside, outside) if teacher else (outside, inside)
    role, other = ("teacher", "student") if teacher else ("student", "teacher")
    notes.append(
        f"distillation file: took the {role} ({len(selected)} tensors), left out the {other} "
        f"({len(dropped)})"
    )
    return selected


def _without_geometry(state: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    if constants := sorted(GEOMETRY_KEYS & state.keys()):
        notes.append(f"ignored constants: {', '.join(constants)}")
    return {key: t for key, t in state.items() if key not in GEOMETRY_KEYS}


def _own_swin_names(
    state: dict[str, Tensor], preset: Preset, notes: list[str]
) -> dict[str, Tensor]:
    camera = preset.network.camera
    if camera is None or not isinstance(camera.backbone, SwinConfig):
        return state
    notes.append("Swin backbone: names and the order of merged channels brought to ours")
    return from_official(state)


def _with_norm_counts(
    state: dict[str, Tensor], want: Mapping[str, Tensor], notes: list[str]
) -> dict[str, Tensor]:
    counts = {key for key in want if key.endswith(_NORM_COUNT)}
    if not counts or any(key.endswith(_NORM_COUNT) for key in state):
        return state
    notes.append(f"no *{_NORM_COUNT} in the file (an old one): set to 0")
    return state | {key: torch.tensor(0) for key in counts}


def _spconv1(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] + shape[:1]


def _check(
    state: Mapping[str, Tensor],
    want: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    shared = want.keys() & state.keys()
    problems = {
        "missing": want.keys() - state.keys(),
        "left over": state.keys() - want.keys(),
        "other shape": {
            f"{key} (file {tuple(state[key].shape)}, network {shapes[key]})"
            for key in shared
            if tuple(state[key].shape) != shapes[key]
        },
        "other kind of number": {
            f"{key} ({state[key].dtype})"
            for key in shared
            if state[key].is_floating_point() != want[key].is_floating_point()
        },
    }
    if any(problems.values()):
        raise SetupError("; ".join(f"{k}: {_some(v)}" for k, v in problems.items() if v))


def _float32(
    state: Mapping[str, Tensor], want: Mapping[str, Tensor], notes: list[str]
) -> dict[str, Tensor]:
    for dtype in sorted(
        {state[key].dtype for key in want if want[key].is_floating_point()}, key=str
    ):
        if dtype != torch.float32:
            n = sum(t.dtype == dtype for t in state.values())
            notes.append(f"{n} tensors of {dtype} converted to float32")
    converted = {key: state[key].to(t.dtype).contiguous() for key, t in want.items()}
    if bad := [key for key, t in converted.items() if not t.isfinite().all()]:
        raise SetupError(f"values that are not finite (in float32): {_some(bad)}")
    return converted


def _some(items: Iterable[str]) -> str:
    ordered = sorted(items)
    rest_text = f" and {len(ordered) - _LISTED} more" if len(ordered) > _LISTED else ""
    return f"{len(ordered)} ({', '.join(ordered[:_LISTED])}{rest_text})"
