"""What tells one log, one truth and one store's labels from another, wherever their folders lie.

Nothing here depends on where a log is: a copy elsewhere, or in an object store, is the same log.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError, SetupError
from datasets.files.bounded_files import MAX_ARRAY_BYTES, regular_size
from datasets.frames import Frame, Scene, SceneSource, in_lidar_frame
from datasets.geometry.transforms import inverse
from datasets.labels.store import LabelStore, StoredScene
from datasets.labels.voxel_labels import FrameLabels, GridFrame

SAME_TIME_US = 1000
SAME_POSE_M, SAME_POSE_RAD = 0.01, 1e-3
"""Up to so much, times and poses are the same: a conversion rounds. Key-frames are many times as
far apart in time, and at 40 m the turn is a tenth of a voxel of 0.4 m."""
NO_SCENE = "the log has no such scene"
READERS = 16
"""Files that are asked for their size at a time: on a network disk each answer takes long."""
_BLOCKS, _BLOCK_BYTES = 16, 4096
_LIDAR = frozenset({"lidar", "past_sweeps", "future_sweeps", "companions"})


class LabeledFrames(Protocol):
    """Labeled frames of a scene.

    Attributes:
        frame_tokens: (T,) in the log's order.
        timestamps_us: (T,).
        T_global_grid: (T, 4, 4) metres.
    """

    @property
    def frame_tokens(self) -> tuple[str, ...]: ...
    @property
    def timestamps_us(self) -> NDArray[np.int64]: ...
    @property
    def T_global_grid(self) -> NDArray[np.float64]: ...  # noqa: N802


def labeled_scene(
    store: LabelStore, scene_id: str, source: SceneSource
) -> tuple[StoredScene, Scene]:
    """A scene of a store, and of the log that it was labeled from.

    Raises:
        SetupError: the labels are of another log.
        SceneError: either cannot be read.
        KeyError: the store has no such scene.
    """
    stored = store.scene(scene_id)
    try:
        scene = source.scene(scene_id)
    except KeyError:
        raise another_log(f"label store {store.place}", scene_id, "", NO_SCENE) from None
    require_same_log(f"label store {store.place}", stored, scene, store.header.frame)
    return stored, scene


def require_log_of(store: LabelStore, scene_id: str, source: SceneSource) -> None:
    """Raises ``SetupError``: the log has a scene of that id, and the store's labels are not of it.
    What cannot be read, or is not in both, is not compared."""
    with contextlib.suppress(SceneError, KeyError):
        stored, scene = store.scene(scene_id), source.scene(scene_id)
        require_same_log(f"label store {store.place}", stored, scene, store.header.frame)


def require_same_log(what: str, labelled: LabeledFrames, scene: Scene, frame: GridFrame) -> None:
    """Raises ``SetupError``: the labels were not made from these frames.

    Args:
        what: the labels, in the words of a message.
        frame: that their grid lies in.
    """
    token, difference = first_difference(labelled, scene, frame)
    if difference:
        raise another_log(what, scene.scene_id, token, difference)


def first_difference(labelled: LabeledFrames, scene: Scene, frame: GridFrame) -> tuple[str, str]:
    """The first frame that was not labeled as the log has it, and how it differs; empty: none.

    Labels tell of each frame its token, its time and its pose, so that is compared. Frames of the
    log without labels, and labels without a frame, are not a difference, as long as one is in both.
    """
    logged = {f.token: f for f in scene.frames}
    common = [k for k, token in enumerate(labelled.frame_tokens) if token in logged]
    if not common:
        return "", "none of the labeled frames is in the log"
    for k in common:
        current = logged[labelled.frame_tokens[k]]
        time_us, T_current = int(labelled.timestamps_us[k]), T_global_grid(current, frame)
        if text := _apart(time_us, labelled.T_global_grid[k], current.timestamp_us, T_current):
            return current.token, text
    return "", ""


def require_same_frame(
    what: str,
    labels: FrameLabels,
    other: Frame | FrameLabels,
    frame: GridFrame,
) -> None:
    """Raises ``SetupError``: the labels of a frame are not of that one, in the log or in other
    labels, though it has the same name.

    Args:
        what: the labels, in the words of a message.
        frame: that their grid lies in.
    """
    placed = T_global_grid(other, frame) if isinstance(other, Frame) else other.T_global_grid
    text = _apart(labels.timestamp_us, labels.T_global_grid, other.timestamp_us, placed)
    if text:
        raise SetupError(f"{what}: labels of another log: the log differs: {text}")


def T_global_grid(frame: Frame, of: GridFrame) -> NDArray[np.float64]:  # noqa: N802
    """(4, 4) pose of the grid of a frame's labels."""
    return (in_lidar_frame(frame) if of == "lidar" and frame.lidar else frame).T_global_ego


def _apart(
    time_us: int, T: NDArray[np.float64], other_us: int, T_other: NDArray[np.float64]
) -> str:
    """How two frames differ, in words; empty: they do not."""
    if abs(late_us := other_us - time_us) > SAME_TIME_US:
        return f"its time is another, by {late_us * 1e-6:+.3f} s"
    away_m, turn_rad = pose_distance(T, T_other)
    if away_m > SAME_POSE_M or turn_rad > SAME_POSE_RAD:
        return f"its pose is another, by {away_m:.2f} m and {np.degrees(turn_rad):.2f} degrees"
    return ""


def pose_distance(T_a: NDArray[np.float64], T_b: NDArray[np.float64]) -> tuple[float, float]:
    """Between two poses, (4, 4) each: metres and radians."""
    if np.array_equal(T_a, T_b):
        return 0.0, 0.0
    step = inverse(T_a) @ T_b
    # from the difference of the matrices: the trace cannot tell small angles from rounding
    turn = 2 * np.arcsin(np.clip(np.linalg.norm(step[:3, :3] - np.eye(3)) / np.sqrt(8), 0, 1))
    return float(np.linalg.norm(step[:3, 3])), float(turn)


def another_log(what: str, scene_id: str, token: str, how: str) -> SetupError:
    """Labels that are not of the log at hand, to be raised.

    Args:
        what: the labels, in the words of a message.
        token: of the frame that differs; empty: the scene does.
        how: it differs.
    """
    place = f"scene {scene_id}, frame {token}" if token else f"scene {scene_id}"
    return SetupError(
        f"{what}: labels of another log: the log differs: {place}: {how}; name the log that was "
        "labeled with --root, or label this one"
    )


def frames_digest(frames: Sequence[Frame], *, lidar: bool) -> str:
    """Hash of what frames state, and of names and sizes of their files.

    Args:
        lidar: with their LiDAR sweeps; what opens none is not to depend on them.
    """
    stated = list[Any]()
    for frame in frames:
        names = [f.name for f in fields(frame) if lidar or f.name not in _LIDAR]
        stated.append([getattr(frame, name) for name in names])
        stated.append(frame.lidar and frame.lidar.T_ego_lidar)  # of grids in the LiDAR's frame
    paths = list(dict.fromkeys(_paths(stated)))
    with ThreadPoolExecutor(READERS) as readers:
        sizes = dict(zip(paths, readers.map(_size, paths), strict=True))
    digest = hashlib.sha256()
    _update(digest, stated, sizes)
    return digest.hexdigest()


def files_digest(paths: Sequence[Path]) -> str:
    """Hash of the content of label files, in this order, by their checksums where they have some.

    A ``.npz`` holds a checksum of each of its arrays. Of another file so many blocks count, evenly
    spaced, and its size.
    """
    with ThreadPoolExecutor(READERS) as readers:
        text = "\n".join(readers.map(_content, paths))
    return hashlib.sha256(text.encode()).hexdigest()


def _content(path: Path) -> str:
    try:
        regular_size(path, 4 * MAX_ARRAY_BYTES, "MAX_ARRAY_BYTES")  # opening a pipe would wait
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                members = zipfile.ZipFile(file).infolist()
                return " ".join(f"{m.filename} {m.file_size} {m.CRC:08x}" for m in members)
            size = file.seek(0, os.SEEK_END)
            digest = hashlib.sha256()
            for k in range(_BLOCKS):
                file.seek(max(0, size - _BLOCK_BYTES) * k // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK_BYTES))
            return f"{size} {digest.hexdigest()}"
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        return "missing" if isinstance(error, FileNotFoundError) else "cannot be read"


def _paths(value: Any) -> Iterable[Path]:
    if isinstance(value, Path):
        yield value
    elif is_dataclass(value):
        for item in fields(value):
            yield from _paths(getattr(value, item.name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _paths(item)


def _size(path: Path) -> str:
    try:
        return str(path.stat().st_size)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        raise SceneError(where=str(path), rule=f"cannot be read: {error}") from None


def _update(digest: hashlib._Hash, value: Any, sizes: dict[Path, str]) -> None:
    """Every value with its kind, so that no two of them read the same."""
    if isinstance(value, Path):
        digest.update(f"file {value.name} {sizes[value]};".encode())
    elif isinstance(value, np.ndarray | np.generic):
        digest.update(f"array {value.dtype} {value.shape};".encode() + value.tobytes())
    elif is_dataclass(value):
        digest.update(b"(")
        for item in fields(value):
            digest.update(f"{item.name}=".encode())
            _update(digest, getattr(value, item.name), sizes)
        digest.update(b")")
    elif isinstance(value, list | tuple):
        digest.update(b"[")
        for item in value:
            _update(digest, item, sizes)
        digest.update(b"]")
    else:
        assert value is None or isinstance(value, str | int | float | bool), type(value)
        digest.update(f"{value!r};".encode())
