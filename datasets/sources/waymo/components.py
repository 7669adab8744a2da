"""A scene as Parquet components (Waymo Open Dataset v2): ``COMPONENT/SCENE.parquet``.

Only ``vehicle_pose`` must be there. Without ``camera_image`` and ``camera_calibration`` the frames
have no cameras, without ``lidar`` (and ``lidar_calibration``, ``lidar_pose``) no LiDAR, without
``lidar_box`` no boxes; point classes come from ``lidar_segmentation``, panoptic labels from
``camera_segmentation``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from datasets.annotations import Box
from datasets.errors import SceneError, SetupError
from datasets.files.bounded_files import parsing, regular_size
from datasets.sources.waymo.recording import (
    CAMERAS,
    TOP,
    CameraCalibration,
    LaserImage,
    RecordedFrame,
    Shot,
    laser_name,
    matrix,
    uniform_inclinations,
    upright_box,
)

CONTEXT = "key.segment_context_name"
TIME = "key.frame_timestamp_micros"
CAMERA = "key.camera_name"
LASER = "key.laser_name"
OBJECT = "key.laser_object_id"
_POSE = "[VehiclePoseComponent].world_from_vehicle.transform"
_IMAGE = "[CameraImageComponent]."
_CAMERA = "[CameraCalibrationComponent]."
_LASER = "[LiDARCalibrationComponent]."
_BOX = "[LiDARBoxComponent]."
_PANOPTIC = "[CameraSegmentationLabelComponent]."


MAX_FILE_BYTES = 8 << 30
"""Of a component of one scene: Waymo's largest take half of one GiB."""
MAX_FOOTER_BYTES = 16 << 20
"""Of what stands at a Parquet file's end: its columns and row groups."""
MAX_ROWS = 1 << 20
"""Of a component of one scene: ten times Waymo's boxes."""
MAX_GROUP_BYTES = 8 << 30
"""That the chosen columns of one row group unpack to, as its footer states them."""
MAX_READ_BYTES = 256 << 20
"""Of the rows that are decoded at a time, and of those of one frame."""
_BATCH_BYTES = 32 << 20
_BUFFER_BYTES = 1 << 20
_MAGIC = b"PAR1"

Result = TypeVar("Result")
Rest = ParamSpec("Rest")


def check_file(path: Path) -> None:
    """Look at a Parquet file before it is opened.

    Raises:
        OSError: it is missing.
        ValueError: it is no Parquet file, or its size or that of its footer is over a limit.
    """
    size = regular_size(path, MAX_FILE_BYTES, "MAX_FILE_BYTES")
    with path.open("rb") as file:
        file.seek(max(0, size - 8))
        end = file.read(8)
    if len(end) < 8 or end[4:] != _MAGIC:
        raise ValueError("no Parquet file")
    if (footer := int.from_bytes(end[:4], "little")) > MAX_FOOTER_BYTES:
        raise ValueError(
            f"a footer of {footer:,} bytes, more than the {MAX_FOOTER_BYTES:,} of MAX_FOOTER_BYTES"
        )


def _batch_rows(group: Any, columns: Sequence[str]) -> int:
    """Rows of a row group that unpack to about ``_BATCH_BYTES``."""
    stated = 0
    for k in range(group.num_columns):
        column = group.column(k)
        if column.path_in_schema.startswith(tuple(columns)):
            stated += max(column.total_uncompressed_size, 8 * column.num_values)
    if stated > MAX_GROUP_BYTES:
        raise ValueError(
            f"columns of {stated:,} bytes, more than the {MAX_GROUP_BYTES:,} of MAX_GROUP_BYTES"
        )
    return int(max(1, _BATCH_BYTES * group.num_rows // max(1, stated)))


def _named(
    method: Callable[Concatenate[Components, Rest], Result],
) -> Callable[Concatenate[Components, Rest], Result]:
    """Whatever columns of wrong kinds make numpy and Python raise, as a ``SceneError``."""

    @functools.wraps(method)
    def wrapped(components: Components, /, *args: Rest.args, **kwargs: Rest.kwargs) -> Result:
        try:
            with parsing(SceneError, SetupError):
                return method(components, *args, **kwargs)
        except (OSError, ValueError) as error:
            location = f"{components._folder}: {components._scene_id}"
            raise SceneError(where=location, rule=f"damaged components: {error}") from error

    return wrapped


class Components:
    """A ``Recording`` over the components of one scene.

    Args:
        folder: holds the component folders.

    Raises:
        SetupError: pyarrow is not installed.
    """

    def __init__(self, folder: Path, scene_id: str) -> None:
        self._arrow = _pyarrow()
        self._folder, self._scene_id = folder, scene_id

    def picture_path(self) -> Path:
        return self._path("camera_image")

    def laser_path(self) -> Path:
        return self._path("lidar")

    def _path(self, component: str) -> Path:
        return self._folder / component / f"{self._scene_id}.parquet"

    def _table(
        self, component: str, columns: Sequence[str], number: int | None = None, **keys: int
    ) -> Any:
        """Columns of one frame's rows (all frames': None); no rows where there is no file."""
        path = self._path(component)
        if not path.exists():
            return self._arrow.table({name: [] for name in columns})
        wanted = {f"key.{key}": value for key, value in keys.items()}
        if number is not None:
            wanted[TIME] = self._times[number]
        try:
            check_file(path)
            with (
                parsing(),
                self._arrow.parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES) as file,
            ):
                return self._rows_of(file, columns, wanted)
        except (OSError, ValueError) as error:
            rule = f"cannot be read: {error}"
            raise SceneError(where=str(path), frame=_record(number), rule=rule) from None

    def _rows_of(self, file: Any, columns: Sequence[str], wanted: Mapping[str, int]) -> Any:
        """A batch at a time, so that no more is decoded at once than a batch takes."""
        schema, rows = file.schema_arrow, file.metadata.num_rows
        if missing := [name for name in (*wanted, *columns) if name not in schema.names]:
            raise ValueError(f"it has no column {missing[0]}")
        for name in (*wanted, *columns):
            if not self._fits(name, kind := schema.field(name).type):
                raise ValueError(f"column {name} is of {kind}")
        if rows > MAX_ROWS:
            raise ValueError(f"{rows:,} rows, more than the {MAX_ROWS:,} of MAX_ROWS")
        chosen = np.ones(rows, np.bool_)
        for name, value in wanted.items():
            chosen &= file.read(columns=[name])[name].to_numpy() == value
        parts, total_bytes, begin = [], 0, 0
        for group in range(file.num_row_groups):
            metadata = file.metadata.row_group(group)
            own = chosen[begin : begin + metadata.num_rows]
            begin += metadata.num_rows
            if not own.any():
                continue
            offset, last = 0, int(np.flatnonzero(own)[-1])
            size = _batch_rows(metadata, columns)
            for batch in file.iter_batches(size, row_groups=[group], columns=list(columns)):
                part = batch.filter(self._arrow.array(own[offset : offset + len(batch)]))
                offset, total_bytes = offset + len(batch), total_bytes + part.nbytes
                if max(total_bytes, batch.nbytes) > MAX_READ_BYTES:
                    raise ValueError(f"over {MAX_READ_BYTES:,} bytes of rows (MAX_READ_BYTES)")
                parts.append(part)
                if offset > last:
                    break
        chosen_schema = self._arrow.schema([schema.field(name) for name in columns])
        table = self._arrow.Table.from_batches(parts) if parts else chosen_schema.empty_table()
        return table.select(list(columns))

    def _fits(self, name: str, kind: Any) -> bool:
        """Whether a column has the type that Waymo's files have, as wide as it likes."""
        types = self._arrow.types
        if types.is_null(kind):
            return not name.startswith("key.")
        if name in (CONTEXT, OBJECT):
            return bool(types.is_string(kind) or types.is_large_string(kind))
        if name.endswith((".image", ".panoptic_label")):
            return bool(types.is_binary(kind) or types.is_large_binary(kind))
        if name.endswith((".transform", ".values", ".shape")):
            if not (
                types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
            ):
                return False
            kind = kind.value_type
        elif name.startswith("key."):
            return bool(types.is_integer(kind))
        return bool(types.is_integer(kind) or types.is_floating(kind))

    def _rows(
        self, component: str, columns: Sequence[str], number: int | None = None, **keys: int
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._table(component, columns, number, **keys).to_pylist()
        for row in rows:
            if missing := [name for name in columns if row[name] is None]:
                raise self._bad(component, number, f"a row has no {missing[0]}")
        return rows

    def _bad(self, component: str, number: int | None, rule: str) -> SceneError:
        return SceneError(where=str(self._path(component)), frame=_record(number), rule=rule)

    @cached_property
    def _poses(self) -> list[dict[str, Any]]:
        rows = self._rows("vehicle_pose", (CONTEXT, TIME, _POSE))
        if not rows:
            raise self._bad("vehicle_pose", None, "missing, or it has no row")
        return sorted(rows, key=lambda row: row[TIME])

    @cached_property
    def _times(self) -> list[int]:
        return [row[TIME] for row in self._poses]

    @_named
    def n_frames(self) -> int:
        return len(self._times)

    @_named
    def frames(self) -> tuple[RecordedFrame, ...]:
        return self._frames

    @cached_property
    def _frames(self) -> tuple[RecordedFrame, ...]:
        shots = self._shots()
        extrinsic = f"{_LASER}extrinsic.transform"
        lasers = {
            row[LASER]: matrix(row[extrinsic], what=f"laser {laser_name(row[LASER])}")
            for row in self._rows("lidar_calibration", (LASER, extrinsic))
        }
        measured: dict[int, set[int]] = {}
        for row in self._rows("lidar", (TIME, LASER)):
            measured.setdefault(row[TIME], set()).add(row[LASER])
        if measured and TOP not in lasers:
            raise self._bad("lidar_calibration", None, "there is no calibration of the TOP laser")
        return tuple(
            RecordedFrame(
                context=row[CONTEXT],
                timestamp_us=row[TIME],
                T_global_vehicle=matrix(row[_POSE], what=str(self._path("vehicle_pose"))),
                shots=tuple(shots.get(row[TIME], ())),
                T_vehicle_lasers={
                    name: T
                    for name, T in lasers.items()
                    if row[TIME] in measured and name in (TOP, *measured[row[TIME]])
                },
            )
            for row in self._poses
        )

    def _shots(self) -> dict[int, list[Shot]]:
        cameras = {c.name: c for c in self._cameras()}
        velocity = [
            f"{_IMAGE}velocity.{kind}_velocity.{axis}"
            for kind in ("linear", "angular")
            for axis in "xyz"
        ]
        pose, pose_s = f"{_IMAGE}pose.transform", f"{_IMAGE}pose_timestamp"
        trigger = f"{_IMAGE}rolling_shutter_params.camera_trigger_time"
        done = f"{_IMAGE}rolling_shutter_params.camera_readout_done_time"
        out: dict[int, list[Shot]] = {}
        rows = self._rows("camera_image", (TIME, CAMERA, pose, pose_s, trigger, done, *velocity))
        for row in sorted(rows, key=lambda row: row[CAMERA]):
            if row[CAMERA] not in cameras:
                raise self._bad("camera_calibration", None, f"there is no camera {row[CAMERA]}")
            moving = np.array([row[name] for name in velocity], np.float64)
            out.setdefault(row[TIME], []).append(
                Shot(
                    calibration=cameras[row[CAMERA]],
                    T_global_vehicle=matrix(row[pose], what=str(self._path("camera_image"))),
                    linear_m_s=moving[:3],
                    angular_rad_s=moving[3:],
                    pose_s=row[pose_s],
                    trigger_s=row[trigger],
                    readout_done_s=row[done],
                )
            )
        return out

    def _cameras(self) -> list[CameraCalibration]:
        names = ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3")
        intrinsic = [f"{_CAMERA}intrinsic.{name}" for name in names]
        extrinsic = f"{_CAMERA}extrinsic.transform"
        size = (f"{_CAMERA}width", f"{_CAMERA}height")
        out = []
        for row in self._rows("camera_calibration", (CAMERA, *size, *intrinsic, extrinsic)):
            if not 1 <= row[CAMERA] <= len(CAMERAS):
                raise self._bad("camera_calibration", None, f"unknown camera {row[CAMERA]}")
            f_u, f_v, c_u, c_v, k1, k2, p1, p2, k3 = (float(row[name]) for name in intrinsic)
            out.append(
                CameraCalibration(
                    name=row[CAMERA],
                    width=row[size[0]],
                    height=row[size[1]],
                    focal_px=(f_u, f_v),
                    centre_px=(c_u, c_v),
                    distortion=(k1, k2, p1, p2, k3),
                    T_vehicle_camera=matrix(row[extrinsic], what=f"camera {row[CAMERA]}"),
                )
            )
        return out

    @_named
    def picture(self, number: int, camera: int) -> bytes:
        column = f"{_IMAGE}image"
        rows = self._rows("camera_image", (column,), number, camera_name=camera)
        if not rows:
            raise self._bad("camera_image", number, f"there is no picture of camera {camera}")
        return bytes(rows[0][column])

    @_named
    def panoptic(self, number: int, camera: int) -> tuple[bytes, int] | None:
        label, divisor = f"{_PANOPTIC}panoptic_label", f"{_PANOPTIC}panoptic_label_divisor"
        rows = self._rows("camera_segmentation", (label, divisor), number, camera_name=camera)
        return (bytes(rows[0][label]), rows[0][divisor]) if rows else None

    @_named
    def tracks(self) -> list[set[str]]:
        objects: dict[int, set[str]] = {time_us: set() for time_us in self._times}
        for row in self._rows("lidar_box", (TIME, OBJECT)):
            objects.setdefault(row[TIME], set()).add(row[OBJECT])
        return [objects[time_us] for time_us in self._times]

    @_named
    def boxes(self, number: int) -> tuple[Box, ...]:
        centre = [f"{_BOX}box.center.{axis}" for axis in "xyz"]
        size = [f"{_BOX}box.size.{axis}" for axis in "xyz"]
        heading, kind = f"{_BOX}box.heading", f"{_BOX}type"
        rows = self._rows("lidar_box", (OBJECT, kind, heading, *centre, *size), number)
        try:
            return tuple(
                upright_box(
                    row[OBJECT],
                    row[kind],
                    centre_m=(row[centre[0]], row[centre[1]], row[centre[2]]),
                    size_m=(row[size[0]], row[size[1]], row[size[2]]),
                    heading_rad=row[heading],
                )
                for row in rows
            )
        except SceneError as error:
            raise self._bad("lidar_box", number, f"{error.where}: {error.rule}") from error

    @_named
    def lasers(self, number: int) -> tuple[LaserImage, ...]:
        extrinsic = f"{_LASER}extrinsic.transform"
        low, high = f"{_LASER}beam_inclination.min", f"{_LASER}beam_inclination.max"
        beams = f"{_LASER}beam_inclination.values"
        calibrations = {
            row[LASER]: row
            for row in self._table(
                "lidar_calibration", (LASER, extrinsic, low, high, beams)
            ).to_pylist()
        }
        images = self._images("lidar", "LiDARComponent", 2, number)
        poses = self._images("lidar_pose", "LiDARPoseComponent", 1, number)
        labels = self._images("lidar_segmentation", "LiDARSegmentationLabelComponent", 2, number)
        out = []
        for name in sorted(images):
            if name not in calibrations:
                rule = f"there is no laser {laser_name(name)}"
                raise self._bad("lidar_calibration", number, rule)
            row, returns = calibrations[name], images[name]
            inclinations = np.array(row[beams] or (), np.float64)[::-1]
            if not inclinations.size:
                inclinations = uniform_inclinations(row[low], row[high], len(returns[0]))
            segments = labels.get(name, ())
            try:
                out.append(
                    LaserImage(
                        name=name,
                        T_vehicle_laser=matrix(row[extrinsic], what=f"laser {laser_name(name)}"),
                        inclinations_rad=inclinations,
                        returns=returns,
                        pixel_poses=poses[name][0] if name in poses else None,
                        labels=segments if len(segments) == len(returns) else (),
                    )
                )
            except SceneError as error:
                raise self._bad("lidar", number, f"{error.where}: {error.rule}") from error
        return tuple(out)

    def _images(
        self, component: str, kind: str, returns: int, number: int
    ) -> dict[int, tuple[Any, ...]]:
        """By ``LaserName``: (H, W, C) of each return that is there."""
        places = [f"[{kind}].range_image_return{k + 1}" for k in range(returns)]
        columns = [f"{place}.{part}" for place in places for part in ("values", "shape")]
        table = self._table(component, (LASER, *columns), number)
        out: dict[int, tuple[Any, ...]] = {}
        for i in range(table.num_rows):
            images = []
            for place in places:
                values, shape = table[f"{place}.values"][i].values, table[f"{place}.shape"][i]
                if values is None or not len(values):
                    continue
                sides = shape.as_py() or ()
                if len(sides) != 3 or min(sides) < 1 or np.prod(sides) != len(values):
                    rule = f"an image of {len(values)} values says {sides}"
                    raise self._bad(component, number, rule)
                images.append(values.to_numpy(zero_copy_only=False).reshape(sides))
            if images:
                out[table[LASER][i].as_py()] = tuple(images)
        return out

    @_named
    def fingerprint(self) -> bytes:
        sizes = [
            f"{path.parent.name} {path.stat().st_size}"
            for path in sorted(self._folder.glob(f"*/{self._scene_id}.parquet"))
        ]
        poses = [f"{row[CONTEXT]} {row[TIME]} {row[_POSE]}" for row in self._poses]
        return "\n".join((*sizes, *poses)).encode()


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise SetupError(
            f"Waymo's Parquet files need pyarrow ({error}): "
            "pip install -c constraints.txt -e '.[waymo]'"
        ) from error
    return pyarrow


def _record(number: int | None) -> str:
    return "" if number is None else f"record {number}"
