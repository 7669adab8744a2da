"""A scene as a TFRecord file of ``Frame`` protos (Waymo Open Dataset v1)."""

from __future__ import annotations

import math
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotations import Box
from datasets.errors import SceneError, SetupError
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
from datasets.sources.waymo.tfrecord import TFRecordFile

INSTALL = (
    "pip install -c constraints.txt -e '.[waymo]' && "
    "pip install --no-deps waymo-open-dataset-tf-2-12-0==1.6.7"
)
MAX_IMAGE_BYTES = 64 << 20
"""A range image unpacks to at most this: ten times the largest, poses of 64 x 2650 pixels."""

COUNTED_BYTES = 4 << 20
"""The messages of a larger record are counted before it is decoded: an empty one has two bytes in
the file and a hundred in memory."""
MAX_MESSAGES = 1 << 18
"""In such a record; a frame of Waymo's has some thousand."""
_DEEPEST = 64


def protos() -> Any:
    """The module ``dataset_pb2`` that Waymo publishes; it imports protobuf and no TensorFlow.

    Raises:
        SetupError: it is not installed.
    """
    try:
        from waymo_open_dataset import dataset_pb2
    except ImportError as error:
        raise SetupError(f"Waymo's TFRecord files need its protos ({error}): {INSTALL}") from error
    return dataset_pb2


class FrameRecords:
    """A ``Recording`` over one file. Decodes one frame at a time and keeps the last one.

    Raises:
        SetupError: the protos are not installed.
        SceneError: the file's records cannot be told apart (``TFRecordFile``).
    """

    def __init__(self, path: Path) -> None:
        self._protos = protos()
        self._file = TFRecordFile(path)
        self._latest: tuple[int, Any] | None = None
        self._tracks: tuple[set[str], ...] = ()

    def picture_path(self) -> Path:
        return self._file.path

    def laser_path(self) -> Path:
        return self._file.path

    def _frame(self, number: int) -> Any:
        if self._latest is None or self._latest[0] != number:
            from google.protobuf.message import DecodeError

            if not 0 <= number < len(self._file):
                raise self._bad(number, f"the file has {len(self._file)}")
            try:
                data = self._file.read(number)
                if len(data) > COUNTED_BYTES:
                    check_messages(data, self._protos.Frame.DESCRIPTOR)
                frame = self._protos.Frame.FromString(data)
            except (DecodeError, ValueError) as error:
                raise self._bad(number, f"is no Frame proto: {error}") from None
            self._latest = (number, frame)
        return self._latest[1]

    def _bad(self, number: int, rule: str) -> SceneError:
        return SceneError(where=str(self._file.path), frame=f"record {number}", rule=rule)

    def n_frames(self) -> int:
        return len(self._file)

    def frames(self) -> tuple[RecordedFrame, ...]:
        return self._frames

    @cached_property
    def _frames(self) -> tuple[RecordedFrame, ...]:
        out: list[RecordedFrame] = []
        tracks: list[set[str]] = []
        for number in range(len(self._file)):
            try:
                frame = self._frame(number)
                out.append(self._described(frame))
                tracks.append({label.id for label in frame.laser_labels})
            except SceneError as error:
                if error.where == str(self._file.path):
                    raise
                raise self._bad(number, f"{error.where}: {error.rule}") from error
            if out[-1].context != out[0].context:
                raise self._bad(number, f"is of {out[-1].context}, record 0 of {out[0].context}")
        self._tracks = tuple(tracks)
        return tuple(out)

    def _described(self, frame: Any) -> RecordedFrame:
        returns = {lsr.name for lsr in frame.lasers if lsr.ri_return1.range_image_compressed}
        lasers = {
            c.name: matrix(c.extrinsic.transform, what=f"laser {laser_name(c.name)}")
            for c in frame.context.laser_calibrations
            if c.name in (*returns, TOP)
        }
        if returns and TOP not in lasers:
            raise SceneError(where="context", rule="there is no calibration of the TOP laser")
        return RecordedFrame(
            context=frame.context.name,
            timestamp_us=frame.timestamp_micros,
            T_global_vehicle=matrix(frame.pose.transform, what="vehicle pose"),
            shots=_shots(frame),
            T_vehicle_lasers=lasers if returns else {},
        )

    def picture(self, number: int, camera: int) -> bytes:
        return bytes(self._image(number, camera).image)

    def _image(self, number: int, camera: int) -> Any:
        for image in self._frame(number).images:
            if image.name == camera:
                return image
        raise self._bad(number, f"it has no picture of camera {camera}")

    def panoptic(self, number: int, camera: int) -> tuple[bytes, int] | None:
        label = self._image(number, camera).camera_segmentation_label
        if not label.panoptic_label:
            return None
        return bytes(label.panoptic_label), label.panoptic_label_divisor

    def boxes(self, number: int) -> tuple[Box, ...]:
        try:
            return tuple(
                upright_box(
                    label.id,
                    label.type,
                    centre_m=(label.box.center_x, label.box.center_y, label.box.center_z),
                    size_m=(label.box.length, label.box.width, label.box.height),
                    heading_rad=label.box.heading,
                )
                for label in self._frame(number).laser_labels
            )
        except SceneError as error:
            raise self._bad(number, f"{error.where}: {error.rule}") from error

    def tracks(self) -> tuple[set[str], ...]:
        self.frames()
        return self._tracks

    def lasers(self, number: int) -> tuple[LaserImage, ...]:
        frame = self._frame(number)
        calibrations = {c.name: c for c in frame.context.laser_calibrations}
        out = []
        for laser in sorted(frame.lasers, key=lambda laser: laser.name):
            if not laser.ri_return1.range_image_compressed:
                continue
            try:
                if laser.name not in calibrations:
                    raise SceneError(where=laser_name(laser.name), rule="it has no calibration")
                out.append(self._laser(laser, calibrations[laser.name]))
            except SceneError as error:
                raise self._bad(number, f"{error.where}: {error.rule}") from error
        return tuple(out)

    def _laser(self, laser: Any, calibration: Any) -> LaserImage:
        float_matrix, int_matrix = self._protos.MatrixFloat, self._protos.MatrixInt32
        images = [laser.ri_return1]
        if laser.ri_return2.range_image_compressed:
            images.append(laser.ri_return2)
        subject = f"laser {laser_name(laser.name)}"
        returns = tuple(
            _unpacked(image.range_image_compressed, float_matrix, np.float32, subject)
            for image in images
        )
        poses = laser.ri_return1.range_image_pose_compressed
        labelled = all(image.segmentation_label_compressed for image in images)
        inclinations = np.array(calibration.beam_inclinations, np.float64)[::-1]
        if not inclinations.size:
            inclinations = uniform_inclinations(
                calibration.beam_inclination_min,
                calibration.beam_inclination_max,
                len(returns[0]),
            )
        return LaserImage(
            name=laser.name,
            T_vehicle_laser=matrix(calibration.extrinsic.transform, what=subject),
            inclinations_rad=inclinations,
            returns=returns,
            pixel_poses=_unpacked(poses, float_matrix, np.float32, subject) if poses else None,
            labels=tuple(
                _unpacked(image.segmentation_label_compressed, int_matrix, np.int32, subject)
                for image in images
                if labelled
            ),
        )

    def fingerprint(self) -> bytes:
        return self._file.checksums()


def check_messages(data: bytes, kind: Any, limit: int = MAX_MESSAGES) -> None:
    """Raise ``ValueError`` where a proto holds more messages than ``limit``, or is cut off.

    Args:
        kind: its descriptor. Fields that it does not know are not decoded either.
    """
    pending = [(0, len(data), kind, 0)]
    count = 0
    while pending:
        offset, end, kind, depth = pending.pop()
        fields = {f.number: f.message_type for f in kind.fields if f.message_type is not None}
        while offset < end:
            key, offset = _varint(data, offset, end)
            match key & 7:
                case 0:
                    _, offset = _varint(data, offset, end)
                case 1:
                    offset += 8
                case 2:
                    size, offset = _varint(data, offset, end)
                    if (inner := fields.get(key >> 3)) is not None:
                        count += 1
                        pending.append((offset, offset + size, inner, depth + 1))
                    offset += size
                case 5:
                    offset += 4
                case _:
                    raise ValueError("it holds a group, as no frame does")
            if offset > end:
                raise ValueError("it is cut off")
            if count > limit or depth > _DEEPEST:
                raise ValueError(f"it holds more messages than the {limit:,} of MAX_MESSAGES")


def _varint(data: bytes, offset: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while offset < end:
        byte = data[offset]
        value, shift, offset = value | (byte & 127) << shift, shift + 7, offset + 1
        if byte < 128 and shift <= 70:
            return value, offset
        if shift >= 70:
            break
    raise ValueError("it is cut off")


def _unpacked(packed: bytes, kind: Any, dtype: Any, what: str) -> Any:
    """(H, W, C) of a zlib-compressed matrix proto."""
    from google.protobuf.message import DecodeError

    unpacking = zlib.decompressobj()
    try:
        raw = unpacking.decompress(packed, MAX_IMAGE_BYTES)
        if not unpacking.eof:
            raise SceneError(
                where=what, rule=f"an image is truncated or unpacks to over {MAX_IMAGE_BYTES} bytes"
            )
        message = kind.FromString(raw)
    except (zlib.error, DecodeError) as error:
        raise SceneError(where=what, rule=f"an image cannot be unpacked: {error}") from None
    shape = tuple(message.shape.dims)
    count = len(message.data)
    if len(shape) != 3 or min(shape) < 1 or math.prod(shape) != count:
        raise SceneError(where=what, rule=f"an image of {count} values says {shape[:9]}")
    if count > MAX_IMAGE_BYTES // 4:
        raise SceneError(where=what, rule=f"an image of {count:,} values is over MAX_IMAGE_BYTES")
    return np.fromiter(message.data, dtype, count).reshape(shape)


def _shots(frame: Any) -> tuple[Shot, ...]:
    calibrations = {c.name: c for c in frame.context.camera_calibrations}
    out = []
    for image in sorted(frame.images, key=lambda image: image.name):
        if image.name not in calibrations:
            raise SceneError(where=f"camera {image.name}", rule="it has no calibration")
        v = image.velocity
        out.append(
            Shot(
                calibration=_camera(calibrations[image.name]),
                T_global_vehicle=matrix(image.pose.transform, what=f"camera {image.name}"),
                linear_m_s=np.array([v.v_x, v.v_y, v.v_z], np.float64),
                angular_rad_s=np.array([v.w_x, v.w_y, v.w_z], np.float64),
                pose_s=image.pose_timestamp,
                trigger_s=image.camera_trigger_time,
                readout_done_s=image.camera_readout_done_time,
            )
        )
    return tuple(out)


def _camera(c: Any) -> CameraCalibration:
    if not 1 <= c.name <= len(CAMERAS) or len(c.intrinsic) != 9:
        raise SceneError(
            where=f"camera {c.name}",
            rule=f"no known camera or not 9 but {len(c.intrinsic)} intrinsic values",
        )
    f_u, f_v, c_u, c_v, k1, k2, p1, p2, k3 = c.intrinsic
    return CameraCalibration(
        name=c.name,
        width=c.width,
        height=c.height,
        focal_px=(f_u, f_v),
        centre_px=(c_u, c_v),
        distortion=(k1, k2, p1, p2, k3),
        T_vehicle_camera=matrix(c.extrinsic.transform, what=f"camera {c.name}"),
    )
