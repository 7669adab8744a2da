"""What must be equal of the files that two runs of one command leave, and when one is torn.

Most files must be equal byte by byte, but for the moments and the names of folders in them. Of the
others ``FORMATS`` names what may differ, and why.
"""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

Tree = dict[str, bytes]
TIMES = {"seconds", "waited_seconds", "start_seconds", "waited", "frames_per_s", "line_began"}
"""Of a training's lines, report and clock: how long it took."""
_MOMENTS = re.compile(rb"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?|(whole|disk)-[\w-]+")


FAULTS = (ValueError, KeyError, TypeError, RuntimeError, struct.error, SafetensorError)
"""Of files that are torn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Attributes:
    essence: what must be equal, of a file's bytes. Raises ``ValueError`` for a torn file.
    grows: lines and records are appended while the command runs, so a file that ends early is
        whole; ``essence`` is a list.
    goes_on: a second run appends to the file of the first, whose bytes stay; it is not equal to
        that of a single run.
    """

    essence: Callable[[bytes], Any]
    grows: bool = False
    goes_on: bool = False


def json_lines(data: bytes) -> list[dict[str, Any]]:
    """The objects of whole lines. Raises ``ValueError`` where one is not."""
    if data and not data.endswith(b"\n"):
        raise ValueError(f"the last line is torn: {data[-80:]!r}")
    return [_without(json.loads(line), {*TIMES, "time"}) for line in data.splitlines()]


def scalars(data: bytes) -> list[tuple[str, int, float]]:
    """Name, step and value of TensorBoard's records, and its marks that values before do not
    count. Raises ``ValueError`` where a record is torn."""
    values: list[tuple[str, int, float]] = []
    offset = 0
    while offset < len(data):
        head, tail = data[offset : offset + 12], data[offset + 12 :]
        if len(head) < 12 or struct.unpack("<I", head[8:]) != (masked_crc32c(head[:8]),):
            raise ValueError(f"a record is torn at byte {offset} of {len(data)}")
        (length,) = struct.unpack("<Q", head[:8])
        record, end = tail[:length], tail[length : length + 4]
        if len(end) < 4 or struct.unpack("<I", end) != (masked_crc32c(record),):
            raise ValueError(f"a record is torn at byte {offset} of {len(data)}")
        offset += 16 + length
        event = Event.FromString(record)
        if event.session_log.status == SessionLog.START:
            values.append(("", event.step, 0.0))
        for value in event.summary.value:
            if value.tag not in TIMES:
                values.append((value.tag, event.step, value.simple_value))
    return values


def weights(data: bytes) -> dict[str, Any]:
    """Tensors and notes, but for the command line and how long it took."""
    (length,) = struct.unpack("<Q", data[:8])
    notes = json.loads(data[8 : 8 + length])["__metadata__"]
    training = _without(json.loads(notes.pop("training")), {"minutes", "command"})
    tensors = safetensors.torch.load(data)
    return {"notes": notes, "training": training, "tensors": _plain(tensors)}


def training_state(data: bytes) -> Any:
    """All but the clock's times, and the floats with which a line's times are summed up."""
    return _without(_plain(torch.load(io.BytesIO(data), weights_only=True)), TIMES)


def note(data: bytes) -> Any:
    """Why a scene is set aside. Its traceback, and so the note's digest, depend on whether one
    thread waits for the other."""
    return _without(json.loads(data), {"detail", "digest"})


FORMATS: dict[str, Format] = {
    # one file for all runs of a job
    "*events.jsonl": Format(essence=json_lines, grows=True, goes_on=True),
    # a resumed training rewrites the lines up to its state: every step once
    "*/log.jsonl": Format(essence=json_lines, grows=True),
    "*/tensorboard/*": Format(essence=scalars, grows=True),
    "*.safetensors": Format(essence=weights),
    "*/state.pt": Format(essence=training_state),
    "*/report.json": Format(essence=lambda data: _without(json.loads(data), TIMES)),
    "*/quarantine/*/zarr.json": Format(essence=note),
}


def format_of(name: str) -> Format:
    """Of a file by its name below the folder that a command writes to."""
    for pattern, format_ in FORMATS.items():
        if fnmatch(name, pattern):
            return format_
    return Format(essence=lambda data: _MOMENTS.sub(b"", data))


def torn(name: str, data: bytes, wanted: bytes | None) -> str:
    """Why a file on a full disk is neither whole nor what may be there; empty if it is.

    Args:
        whole: what an undisturbed run writes there; None: nothing.
    """
    format_ = format_of(name)
    try:
        essence = format_.essence(data)
        if format_.grows:
            return ""
        return "" if wanted is not None and essence == format_.essence(wanted) else "of no run"
    except FAULTS as error:
        return f"{type(error).__name__}: {error}"


def differing(tree: Tree, wanted: Tree) -> list[str]:
    """Names of the files that are not what an undisturbed run leaves."""
    essences, other = _essences(tree), _essences(wanted)
    return sorted(
        name for name in essences.keys() | other.keys() if essences.get(name) != other.get(name)
    )


def _essences(tree: Tree) -> dict[str, Any]:
    """By name; of one folder of TensorBoard's files, which carry their moments as names, those
    values that count in the end."""
    essences: dict[str, Any] = {}
    for name in sorted(tree):
        format_ = format_of(name)
        try:
            essence = format_.essence(tree[name])
        except FAULTS as error:
            essences[name] = repr(error)
            continue
        if format_.essence is scalars:
            curves = essences.setdefault(f"{name.rpartition('/')[0]}/", {})
            for tag, step, value in essence:
                if tag:
                    curves[tag, step] = value
                else:
                    for superseded in [key for key in curves if key[1] >= step]:
                        del curves[superseded]
        elif format_.goes_on:
            # the job has ended, as it has in the other run; its second run had less to do
            essences[name] = [line.get("event") for line in essence[-1:]]
        else:
            essences[name] = essence
    return essences


def _plain(value: Any) -> Any:
    """Tensors as their type, shape and bytes."""
    if isinstance(value, torch.Tensor):
        data = value.detach().cpu().contiguous()
        return str(data.dtype), tuple(data.shape), data.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _without(value: Any, names: set[str]) -> Any:
    """A JSON value without these keys, wherever they are."""
    if isinstance(value, dict):
        return {key: _without(v, names) for key, v in value.items() if key not in names}
    return [_without(v, names) for v in value] if isinstance(value, list) else value
