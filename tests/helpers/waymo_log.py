"""A made-up Waymo segment in the published formats: a street of boxes seen from a turning car.

Ranges are cast ray by ray from where the vehicle is when each column is measured, so the points
that a reader must find are known without it.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from datasets.geometry.transforms import Transform, apply, from_yaw, inverse
from datasets.sources.waymo.frame_records import protos
from datasets.sources.waymo.tfrecord import masked_crc

CONTEXT = "1005081002024129653_5313_150_5333_150"
START_S = 1_550_000_000.0
TURN_S = 0.1
SPEED_M_S = np.array([12.0, 5.0, 0.1])
SPIN_RAD_S = np.array([0.01, -0.02, 0.4])
START_POSE = from_yaw(0.7, (1203.5, -877.25, 14.0))
WALLS = (  # axis-aligned boxes in the global frame, relative to the start: low, high
    ((8.0, -12.0, -2.0), (30.0, -7.0, 6.0)),
    ((-20.0, 9.0, -2.0), (20.0, 14.0, 9.0)),
    ((15.0, 0.0, -2.0), (19.0, 2.0, 0.5)),
)
NO_LABEL_X_M = 10.0  # farther ahead than this is a no-label zone
CAMERAS = {1: 0.0, 2: 0.8, 3: -0.8, 4: 1.57, 5: -1.57}  # yaw
LASERS = {1: (2.58, 1.43, 0.0, 2.18), 2: (0.0, 4.07, 0.0, 0.69), 5: (3.13, -1.16, 0.0, 0.46)}


def rotation(turn_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """By the series of the exponential, not by the formula that the reader uses."""
    x, y, z = turn_rad
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    out, term = np.eye(3), np.eye(3)
    for k in range(1, 12):
        term = term @ K / k
        out = out + term
    return out


def pose(t_s: float) -> Transform:
    """Vehicle to global, ``t_s`` after the start."""
    T = START_POSE.copy()
    T[:3, :3] = rotation(SPIN_RAD_S * t_s) @ T[:3, :3]
    T[:3, 3] += SPEED_M_S * t_s
    return T


def euler(R: NDArray[np.float64]) -> tuple[float, float, float]:
    """Roll, pitch, yaw of R = Rz(yaw) Ry(pitch) Rx(roll)."""
    return (
        float(np.arctan2(R[2, 1], R[2, 2])),
        float(-np.arcsin(R[2, 0])),
        float(np.arctan2(R[1, 0], R[0, 0])),
    )


def cast(origin: NDArray[np.float64], rays: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) metres along the rays (N, 3) to the ground or the first wall; 0 beyond 75 m."""
    origin = origin - START_POSE[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        best = np.where(rays[:, 2] < 0, -(origin[2] + 0.3) / rays[:, 2], np.inf)
        for low, high in WALLS:
            a, b = (np.array(low) - origin) / rays, (np.array(high) - origin) / rays
            enter, leave = np.minimum(a, b).max(1), np.maximum(a, b).min(1)
            best = np.where((enter <= leave) & (enter > 0), np.minimum(best, enter), best)
    return np.where(best < 75, best, 0.0)


@dataclass(frozen=True, kw_only=True)
class Segment:
    """What is written, and the truth about it.

    Attributes:
        frames: ``Frame`` protos.
        points_m: per frame, per (laser, return): (N, 3) in the frame's vehicle frame, row by row.
    """

    frames: list[Any]
    points_m: list[dict[tuple[int, int], NDArray[np.float64]]]

    def in_order(self, k: int) -> NDArray[np.float64]:
        """(N, 3) laser by laser, first returns first."""
        return np.concatenate([self.points_m[k][key] for key in sorted(self.points_m[k])])


def segment(
    *,
    frames: int = 3,
    top: tuple[int, int] = (16, 180),
    side: tuple[int, int] = (12, 60),
    picture: tuple[int, int] = (192, 128),
    lasers: bool = True,
) -> Segment:
    """``top`` and ``side`` are rows and columns of range images, ``picture`` width and height."""
    out = Segment(frames=[], points_m=[])
    for k in range(frames):
        frame = protos().Frame()
        frame.context.name = CONTEXT
        frame.timestamp_micros = round((START_S + k * TURN_S) * 1e6)
        middle = pose((k + 0.5) * TURN_S)
        frame.pose.transform.extend(middle.ravel())
        _add_cameras(frame, k, picture)
        truth: dict[tuple[int, int], NDArray[np.float64]] = {}
        if lasers:
            for name in LASERS:
                _add_laser(frame, k, name, top if name == 1 else side, truth)
        _add_boxes(frame, k)
        out.frames.append(frame)
        out.points_m.append(truth)
    return out


def _add_boxes(frame: Any, k: int) -> None:
    for i, kind in enumerate((1, 2, 3, 4)):
        label = frame.laser_labels.add(id=f"object-{i}", type=kind)
        box = label.box
        box.center_x, box.center_y, box.center_z = 10.0 + k, 3.0 * i, 1.0
        box.length, box.width, box.height, box.heading = 4.0, 2.0, 1.5, 0.1 * i


def _add_cameras(frame: Any, k: int, size: tuple[int, int]) -> None:
    width, height = size
    for name, yaw in CAMERAS.items():
        c = frame.context.camera_calibrations.add(name=name, width=width, height=height)
        c.intrinsic.extend([width * 1.06, width * 1.06, width / 2 + 1, height / 2 - 2])
        c.intrinsic.extend([0.04, -0.33, 0.001, -0.0016, 0.0])
        c.extrinsic.transform.extend(from_yaw(yaw, (1.5, 0.1 * yaw, 2.1)).ravel())
        c.rolling_shutter_direction = 2
        image = frame.images.add(name=name)
        start = START_S + k * TURN_S
        image.camera_trigger_time = start + 0.02 + 0.005 * name
        image.camera_readout_done_time = image.camera_trigger_time + 0.046
        image.shutter = 0.003
        image.pose_timestamp = start + 0.035 + 0.005 * name
        image.pose.transform.extend(pose(image.pose_timestamp - START_S).ravel())
        v = image.velocity
        v.v_x, v.v_y, v.v_z = SPEED_M_S
        v.w_x, v.w_y, v.w_z = SPIN_RAD_S
        colours = np.full((height, width, 3), (40 * name, 20 * k, 128), np.uint8)
        image.image = jpeg(colours)
        label = np.full((height, width), 2 * 1000 + name, np.uint16)  # a car
        label[: height // 2] = 25 * 1000  # sky
        image.camera_segmentation_label.panoptic_label_divisor = 1000
        image.camera_segmentation_label.panoptic_label = png(label)


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


def png(values: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def _add_laser(
    frame: Any,
    k: int,
    name: int,
    shape: tuple[int, int],
    truth: dict[tuple[int, int], NDArray[np.float64]],
) -> None:
    rows, columns = shape
    yaw, *place = LASERS[name]
    T_vehicle_laser = from_yaw(yaw, place)
    T_vehicle_laser[:3, :3] = T_vehicle_laser[:3, :3] @ rotation(np.array([0.02, -0.01, 0.0]))
    calibration = frame.context.laser_calibrations.add(name=name)
    calibration.extrinsic.transform.extend(T_vehicle_laser.ravel())
    if name == 1:
        upwards = np.linspace(-0.31, 0.045, rows) ** 3 / 0.09 + np.linspace(-0.2, 0.04, rows)
        calibration.beam_inclinations.extend(upwards)
    else:
        low, high = -1.2, 0.4
        upwards = low + (np.arange(rows) + 0.5) * (high - low) / rows
        calibration.beam_inclination_min, calibration.beam_inclination_max = low, high
    pitches = upwards[::-1]  # the top row looks highest
    first, second = np.zeros((rows, columns, 4), "f4"), np.zeros((rows, columns, 4), "f4")
    poses = np.zeros((rows, columns, 6), "f4")
    found: dict[int, list[tuple[int, int, NDArray[np.float64]]]] = {1: [], 2: []}
    T_vehicle_global = inverse(pose((k + 0.5) * TURN_S))
    actual_yaw = np.arctan2(T_vehicle_laser[1, 0], T_vehicle_laser[0, 0])
    for c in range(columns):
        # TOP turns during the frame; the others' images are already of the frame's pose
        share = (c + 0.5) / columns
        T_global_vehicle = pose((k + (share if name == 1 else 0.5)) * TURN_S)
        T = T_global_vehicle @ T_vehicle_laser
        azimuth = np.pi * (1 - 2 * share) - actual_yaw  # the middle column looks ahead
        rays = np.stack(
            [
                np.cos(pitches) * np.cos(azimuth),
                np.cos(pitches) * np.sin(azimuth),
                np.sin(pitches),
            ],
            axis=1,
        )
        metres = cast(T[:3, 3], rays @ T[:3, :3].T)
        poses[:, c] = (*euler(T_global_vehicle[:3, :3]), *T_global_vehicle[:3, 3])
        for r in np.flatnonzero(metres):
            there = apply(T_vehicle_global @ T, metres[r] * rays[r])
            first[r, c] = (metres[r], 0.25 + r, 0.5, _zone(there))
            found[1].append((int(r), c, there))
            if (r + c) % 5 == 0:  # a second return 1.5 m behind the first
                behind = apply(T_vehicle_global @ T, (metres[r] + 1.5) * rays[r])
                second[r, c] = (metres[r] + 1.5, 20000.0, 1.5, _zone(behind))
                found[2].append((int(r), c, behind))
    for number in (1, 2):
        listed = [p for _, _, p in sorted(found[number], key=lambda entry: entry[:2])]
        truth[name, number] = np.array(listed).reshape(-1, 3)
    laser = frame.lasers.add(name=name)
    laser.ri_return1.range_image_compressed = packed(first)
    laser.ri_return2.range_image_compressed = packed(second)
    if name == 1:
        laser.ri_return1.range_image_pose_compressed = packed(poses)
        labels = np.zeros((rows, columns, 2), np.int32)
        labels[..., 1] = np.where(np.arange(columns) % 2, 18, 14)  # road and building
        labels[0, :, 1] = 0  # not labelled
        laser.ri_return1.segmentation_label_compressed = packed(labels)
        laser.ri_return2.segmentation_label_compressed = packed(labels)


def _zone(point_m: NDArray[np.float64]) -> float:
    return 1.0 if point_m[0] > NO_LABEL_X_M else -1.0


def packed(values: NDArray[Any]) -> bytes:
    """As ``MatrixFloat`` or ``MatrixInt32``, compressed."""
    kind = protos().MatrixFloat if values.dtype == np.float32 else protos().MatrixInt32
    message = kind(data=values.ravel().tolist())
    message.shape.dims.extend(values.shape)
    return zlib.compress(message.SerializeToString(), 1)


def unpacked(data: bytes, kind: Any) -> Any:
    return kind.FromString(zlib.decompress(data))


def record(data: bytes) -> bytes:
    """One TFRecord."""
    length = struct.pack("<Q", len(data))
    return b"".join(
        (
            length,
            struct.pack("<I", masked_crc(length)),
            data,
            struct.pack("<I", masked_crc(data)),
        )
    )


def write_records(path: Path, written: Segment) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(record(frame.SerializeToString()) for frame in written.frames))
    return path


def write_components(folder: Path, written: Segment) -> None:
    """The same segment as v2 components, with the column names and types of Waymo's writer."""
    floats, places = pa.list_(pa.float32()), pa.list_(pa.float64(), 16)
    tables: dict[str, list[dict[str, Any]]] = {}
    P = protos()

    def add(component: str, **columns: Any) -> None:
        tables.setdefault(component, []).append(columns)

    for frame in written.frames:
        frame_key = {
            "key.segment_context_name": frame.context.name,
            "key.frame_timestamp_micros": frame.timestamp_micros,
        }
        add(
            "vehicle_pose",
            **frame_key,
            **{"[VehiclePoseComponent].world_from_vehicle.transform": list(frame.pose.transform)},
        )
        for image in frame.images:
            moving, p = image.velocity, "[CameraImageComponent]."
            key = {**frame_key, "key.camera_name": image.name}
            add(
                "camera_image",
                **key,
                **{
                    f"{p}image": image.image,
                    f"{p}pose.transform": list(image.pose.transform),
                    f"{p}velocity.linear_velocity.x": moving.v_x,
                    f"{p}velocity.linear_velocity.y": moving.v_y,
                    f"{p}velocity.linear_velocity.z": moving.v_z,
                    f"{p}velocity.angular_velocity.x": moving.w_x,
                    f"{p}velocity.angular_velocity.y": moving.w_y,
                    f"{p}velocity.angular_velocity.z": moving.w_z,
                    f"{p}pose_timestamp": image.pose_timestamp,
                    f"{p}rolling_shutter_params.shutter": image.shutter,
                    f"{p}rolling_shutter_params.camera_trigger_time": image.camera_trigger_time,
                    f"{p}rolling_shutter_params.camera_readout_done_time": (
                        image.camera_readout_done_time
                    ),
                },
            )
            label, p = image.camera_segmentation_label, "[CameraSegmentationLabelComponent]."
            add(
                "camera_segmentation",
                **key,
                **{
                    f"{p}panoptic_label_divisor": label.panoptic_label_divisor,
                    f"{p}panoptic_label": label.panoptic_label,
                },
            )
        for laser in frame.lasers:
            key = {**frame_key, "key.laser_name": laser.name}
            returns = {1: laser.ri_return1, 2: laser.ri_return2}

            def columns(kind: str, field: str, proto: Any, numbers: tuple[int, ...]) -> Any:
                out: dict[str, Any] = {}
                for n in numbers:
                    message = unpacked(getattr(returns[n], field), proto)  # noqa: B023
                    out[f"[{kind}].range_image_return{n}.values"] = list(message.data)
                    out[f"[{kind}].range_image_return{n}.shape"] = list(message.shape.dims)
                return out

            both = columns("LiDARComponent", "range_image_compressed", P.MatrixFloat, (1, 2))
            add("lidar", **key, **both)
            if laser.name == 1:
                field = "range_image_pose_compressed"
                first = columns("LiDARPoseComponent", field, P.MatrixFloat, (1,))
                add("lidar_pose", **key, **first)
                field, kind = "segmentation_label_compressed", "LiDARSegmentationLabelComponent"
                both = columns(kind, field, P.MatrixInt32, (1, 2))
                add("lidar_segmentation", **key, **both)
        for label in frame.laser_labels:
            box, p = label.box, "[LiDARBoxComponent]."
            add(
                "lidar_box",
                **frame_key,
                **{
                    "key.laser_object_id": label.id,
                    f"{p}type": label.type,
                    f"{p}box.center.x": box.center_x,
                    f"{p}box.center.y": box.center_y,
                    f"{p}box.center.z": box.center_z,
                    f"{p}box.size.x": box.length,
                    f"{p}box.size.y": box.width,
                    f"{p}box.size.z": box.height,
                    f"{p}box.heading": box.heading,
                },
            )
    context = written.frames[0].context
    for c in context.camera_calibrations:
        p = "[CameraCalibrationComponent]."
        names = ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3")
        add(
            "camera_calibration",
            **{
                "key.segment_context_name": context.name,
                "key.camera_name": c.name,
                f"{p}extrinsic.transform": list(c.extrinsic.transform),
                f"{p}width": c.width,
                f"{p}height": c.height,
            },
            **{f"{p}intrinsic.{n}": v for n, v in zip(names, c.intrinsic, strict=True)},
        )
    for c in context.laser_calibrations:
        p = "[LiDARCalibrationComponent]."
        add(
            "lidar_calibration",
            **{
                "key.segment_context_name": context.name,
                "key.laser_name": c.name,
                f"{p}extrinsic.transform": list(c.extrinsic.transform),
                f"{p}beam_inclination.min": c.beam_inclination_min,
                f"{p}beam_inclination.max": c.beam_inclination_max,
                f"{p}beam_inclination.values": list(c.beam_inclinations) or None,
            },
        )
    for component, rows in tables.items():
        fields = []
        for name, value in rows[0].items():
            if name.endswith("transform"):
                kind = places
            elif name.endswith(".values") and "inclination" in name:
                kind = pa.list_(pa.float64())
            elif name.endswith(".values"):
                kind = pa.list_(pa.int32()) if "Segmentation" in name else floats
            elif name.endswith(".shape"):
                kind = pa.list_(pa.int32(), 3)
            elif name in ("key.camera_name", "key.laser_name") or name.endswith("].type"):
                kind = pa.int8()
            else:
                kind = pa.scalar(value).type
            fields.append(pa.field(name, kind))
        path = folder / component / f"{context.name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(fields)), path)
