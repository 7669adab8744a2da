"""One good input of every kind that the package reads, and the reading of all that is in it."""

from __future__ import annotations

import csv
import io
import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
from chaos_modes.outcome import small_city
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import models
from autolabel.confidence.calibration import Calibration
from autolabel.confidence.risk_control import CalibrationCounts
from datasets.annotations import AnnotatedSource
from datasets.benchmarks.catalogue import benchmark
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.benchmarks.label_files import write_npz
from datasets.errors import SetupError
from datasets.files.json_files import json_text, write_json
from datasets.frames import Frame, LidarSweep, Scene
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import from_yaw, to_quaternion
from datasets.labels.audit_record import read_audit
from datasets.labels.domain import ConfidenceDomain, LogDomain, Reference
from datasets.labels.lidar_check import LidarReference
from datasets.labels.store import LabelStore, SceneLabels, StoreHeader
from datasets.reviews.entries import EditEntry, NoteEntry, Verdict, VerdictEntry
from datasets.reviews.overlay import Reviews
from datasets.sources.nuscenes import NuScenesSource
from datasets.sources.opening import open_source
from datasets.sources.pandaset import PandasetSequence
from datasets.sources.waymo.components import CONTEXT, TIME
from datasets.sources.waymo.frame_records import protos
from datasets.sources.waymo.source import WaymoSource
from datasets.sources.waymo.tfrecord import TFRecordFile, masked_crc
from datasets.splits import parse_labelled
from datasets.store_ops.compare import diff
from datasets.store_ops.export import export
from datasets.store_ops.maintenance import info, leftovers, prune, verify
from datasets.store_ops.merge import merge
from datasets.taxonomy import OCC3D_NUSCENES
from models.checkpoints.checkpoint import (
    CALIBRATION_KEY,
    DOMAIN_KEY,
    EVIDENCE_KEY,
    load_checkpoint,
    metadata_json,
    save_checkpoint,
)
from models.checkpoints.official import convert, read_checkpoint
from models.presets import build, preset
from models.training.loop import TrainingConfig, train
from models.training.resume_state import load_state
from viz.review.priority import read_reports
from viz.window.saved_views import read_views

SHIPPED = Path(models.__file__).parent / "weights" / "city_small_teacher.safetensors"
GRID = VoxelGrid(min_m=(-2.0, -2.0, -1.0), size_m=(0.5, 0.5, 0.5), shape=(8, 6, 4))
START_US = 1_600_000_000_000_000
IDENTITY = {"config": {"steps": 3}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Attributes:
    make: writes a good input into an empty folder.
    read: reads all of it, as the commands do.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], None]


def _pose(T: NDArray[np.float64]) -> dict[str, list[float]]:
    return {"rotation_wxyz": to_quaternion(T).tolist(), "translation_m": T[:3, 3].tolist()}


def _all_of(source: AnnotatedSource) -> None:
    for scene_id in source.scene_ids("all"):
        source.n_frames(scene_id)
        scene = source.scene(scene_id)
        source.fingerprint(scene_id)
        for frame in scene.frames:
            for view in frame.cameras:
                source.read_image(view)
            for sweep in frame.sweeps:
                source.read_points(sweep)
            source.annotations(frame)


def _make_folder(root: Path) -> None:
    scene = root / "scenes" / "a"
    for sub in ("lidar", "front"):
        (scene / sub).mkdir(parents=True)
    rng = np.random.default_rng(0)
    camera = np.array([[0, 0, 1, 1.5], [-1, 0, 0, 0], [0, -1, 0, 1.6], [0, 0, 0, 1]], float)
    sweeps, frames = [], []
    images = ("0.png", "1.jpg", "2.tiff", "3.webp", "4.bmp")
    for i, image in enumerate(images):
        T = from_yaw(0.5, [100 + 0.5 * i, 50, 3])
        name = f"lidar/{i}{('.npz', '.bin', '.ply')[i % 3]}"
        points = np.c_[rng.uniform([2, -5, 0], [20, 5, 3], (50, 3)), np.full(50, 200)].astype("f4")
        classes = np.full(50, 15, np.uint8)
        match i % 3:
            case 0:
                np.savez_compressed(scene / name, points=points, classes=classes)
            case 1:
                (scene / name).write_bytes(points.tobytes())
                np.save(scene / f"lidar/{i}.classes.npy", classes)
            case _:
                lines = ["ply", "format binary_little_endian 1.0", "element vertex 50"]
                lines += [f"property float {axis}" for axis in ("x", "y", "z", "intensity")]
                header = "\n".join([*lines, "end_header", ""]).encode()
                (scene / name).write_bytes(header + points.tobytes())
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).save(scene / "front" / image)
        time_us = START_US + i * 100_000
        sweep = {"file": name, "lidar": "top", "timestamp_us": time_us}
        sweeps.append({**sweep, "T_global_vehicle": _pose(T)})
        view = {"camera": "front", "file": f"front/{image}", "timestamp_us": time_us}
        frames.append({"token": f"{i:03d}", "sweep": name, "cameras": [view]})
    document = {
        "cameras": {
            "front": {
                "width": 32,
                "height": 24,
                "T_vehicle_camera": _pose(camera),
                "intrinsics": [[30, 0, 16], [0, 30, 12], [0, 0, 1]],
            }
        },
        "lidars": {"top": {"T_vehicle_lidar": _pose(from_yaw(0.1, [0.9, 0, 1.8]))}},
        "sweeps": sweeps,
        "frames": frames,
    }
    box: dict[str, Any] = {"track": "7", "class": "car", "size_m": [4.5, 1.9, 1.6]}
    box["T_vehicle_box"] = _pose(from_yaw(0.2, [10, 0, 1]))
    write_json(scene / "scene.json", document)
    write_json(scene / "annotations.json", {"frames": {"000": [box], "004": []}})
    log: dict[str, Any] = {"format": "autolabel-folder", "version": 1, "name": "m", "licence": "-"}
    log |= {"splits": {"train": ["a"]}, "points": {"intensity_max": 255}}
    log |= {"class_map": {"Van": "car"}, "vehicle_m": [[-1.2, -1.1, -0.5], [3.6, 1.1, 2.2]]}
    write_json(root / "log.json", log)


def _read_folder(root: Path) -> None:
    _all_of(open_source("folder", root, past_sweeps=2, future_sweeps=1))


def _make_nuscenes(root: Path) -> None:
    small_city(root, scenes=1, frames=2)
    for extra in (*root.glob("gts"), *root.glob("occ3d*")):
        shutil.rmtree(extra)


def _read_nuscenes(root: Path) -> None:
    _all_of(NuScenesSource(root, past_sweeps=2, refuse_impossible=True))


def _packed(values: NDArray[Any]) -> bytes:
    kind = protos().MatrixFloat if values.dtype == np.float32 else protos().MatrixInt32
    message = kind(data=values.ravel().tolist())
    message.shape.dims.extend(values.shape)
    return zlib.compress(message.SerializeToString(), 1)


def _encoded(pixels: NDArray[Any], kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def _make_waymo(root: Path) -> None:
    rng = np.random.default_rng(0)
    out = []
    for k in range(2):
        frame = protos().Frame()
        frame.context.name = "1005081002024129653_5313_150_5333_150"
        frame.timestamp_micros = START_US + k * 100_000
        pose = from_yaw(0.7, (1203.5 + k, -877.25, 14.0))
        frame.pose.transform.extend(pose.ravel())
        c = frame.context.camera_calibrations.add(name=1, width=48, height=32)
        c.intrinsic.extend([50, 50, 24, 16, 0.04, -0.33, 0.001, -0.0016, 0.0])
        c.extrinsic.transform.extend(from_yaw(0.0, (1.5, 0, 2.1)).ravel())
        c.rolling_shutter_direction = 2
        image = frame.images.add(name=1)
        image.camera_trigger_time = frame.timestamp_micros / 1e6 + 0.02
        image.camera_readout_done_time = image.camera_trigger_time + 0.046
        image.pose_timestamp = image.camera_trigger_time + 0.02
        image.pose.transform.extend(pose.ravel())
        image.image = _encoded(rng.integers(0, 255, (32, 48, 3), np.uint8), "JPEG")
        label = image.camera_segmentation_label
        label.panoptic_label_divisor = 1000
        label.panoptic_label = _encoded(np.full((32, 48), 2001, np.uint16), "PNG")
        lidar = frame.context.laser_calibrations.add(name=1)
        lidar.extrinsic.transform.extend(from_yaw(2.58, (1.43, 0.0, 2.18)).ravel())
        lidar.beam_inclinations.extend(np.linspace(-0.3, 0.05, 8))
        ranges = np.stack([np.full((8, 60), v, "f4") for v in (12.0, 0.5, 0.5, -1.0)], -1)
        laser = frame.lasers.add(name=1)
        poses = np.tile(np.array([0, 0, 0.7, *pose[:3, 3]], np.float32), (8, 60, 1))
        marks = np.full((8, 60, 2), 18, np.int32)
        for returned in (laser.ri_return1, laser.ri_return2):
            returned.range_image_compressed = _packed(ranges)
            returned.segmentation_label_compressed = _packed(marks)
        laser.ri_return1.range_image_pose_compressed = _packed(poses)
        box = frame.laser_labels.add(id="object", type=1).box
        box.center_x, box.center_y, box.center_z = 10.0, 3.0, 1.0
        box.length, box.width, box.height, box.heading = 4.0, 2.0, 1.5, 0.1
        data = frame.SerializeToString()
        length = len(data).to_bytes(8, "little")
        out += [length, masked_crc(length).to_bytes(4, "little")]
        out += [data, masked_crc(data).to_bytes(4, "little")]
    (root / "segment-a_with_camera_labels.tfrecord").write_bytes(b"".join(out))


def _make_components(root: Path) -> None:
    """The same frames as Parquet files."""
    _make_waymo(root)
    (records,) = root.iterdir()
    file = TFRecordFile(records)
    tables: dict[str, list[dict[str, Any]]] = {}
    for k in range(len(file)):
        frame = protos().Frame.FromString(file.read(k))
        moment = {CONTEXT: frame.context.name, TIME: frame.timestamp_micros}
        for component, prefix, row in _component_rows(frame):
            keys = {name: value for name, value in row.items() if name.startswith("key.")}
            named = {f"{prefix}.{name}": v for name, v in row.items() if name not in keys}
            tables.setdefault(component, []).append({**moment, **keys, **named})
    records.unlink()
    for component, rows in tables.items():
        (root / component).mkdir()
        distinct = rows[:1] if component.endswith("calibration") else rows
        pyarrow.parquet.write_table(
            pyarrow.Table.from_pylist(distinct), root / component / "a.parquet", row_group_size=1
        )


def _component_rows(frame: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    (camera,), (lidar,) = frame.context.camera_calibrations, frame.context.laser_calibrations
    (image,), (laser,), (label,) = frame.images, frame.lasers, frame.laser_labels
    eye, top = {"key.camera_name": 1}, {"key.laser_name": 1}
    yield (
        "vehicle_pose",
        "[VehiclePoseComponent]",
        {"world_from_vehicle.transform": _list(frame.pose)},
    )
    velocity = {
        f"velocity.{kind}_velocity.{a}": 0.0 for kind in ("linear", "angular") for a in "xyz"
    }
    shutter = "rolling_shutter_params.camera"
    shot = {"image": image.image, "pose.transform": _list(image.pose), **velocity}
    shot |= {"pose_timestamp": image.pose_timestamp}
    shot |= {f"{shutter}_trigger_time": image.camera_trigger_time}
    shot |= {f"{shutter}_readout_done_time": image.camera_readout_done_time}
    yield "camera_image", "[CameraImageComponent]", eye | shot
    mark = image.camera_segmentation_label
    panoptic = {"panoptic_label": mark.panoptic_label}
    panoptic |= {"panoptic_label_divisor": mark.panoptic_label_divisor}
    yield "camera_segmentation", "[CameraSegmentationLabelComponent]", eye | panoptic
    names = ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3")
    lens = {f"intrinsic.{n}": v for n, v in zip(names, camera.intrinsic, strict=True)}
    lens |= {"width": 48, "height": 32, "extrinsic.transform": _list(camera.extrinsic)}
    yield "camera_calibration", "[CameraCalibrationComponent]", eye | lens
    beams: dict[str, Any] = {"beam_inclination.min": -0.3, "beam_inclination.max": 0.05}
    beams |= {"beam_inclination.values": list(lidar.beam_inclinations)}
    beams |= {"extrinsic.transform": _list(lidar.extrinsic)}
    yield "lidar_calibration", "[LiDARCalibrationComponent]", top | beams
    for component, kind, field, numbers in (
        ("lidar", "LiDAR", "range_image_compressed", (1, 2)),
        ("lidar_pose", "LiDARPose", "range_image_pose_compressed", (1,)),
        ("lidar_segmentation", "LiDARSegmentationLabel", "segmentation_label_compressed", (1, 2)),
    ):
        images: dict[str, Any] = {}
        for n in numbers:
            packed = getattr(getattr(laser, f"ri_return{n}"), field)
            proto = protos().MatrixInt32 if "segmentation" in field else protos().MatrixFloat
            message = proto.FromString(zlib.decompress(packed))
            images[f"range_image_return{n}.values"] = list(message.data)
            images[f"range_image_return{n}.shape"] = list(message.shape.dims)
        yield component, f"[{kind}Component]", top | images
    box: dict[str, Any] = {"key.laser_object_id": label.id, "type": label.type}
    box |= {"box.heading": label.box.heading}
    box |= {f"box.center.{a}": getattr(label.box, f"center_{a}") for a in "xyz"}
    sides = zip("xyz", ("length", "width", "height"), strict=True)
    box |= {f"box.size.{a}": getattr(label.box, side) for a, side in sides}
    yield "lidar_box", "[LiDARBoxComponent]", box


def _list(message: Any) -> list[float]:
    return list(message.transform)


def _read_waymo(root: Path) -> None:
    source = WaymoSource(root, past_sweeps=1, refuse_impossible=True)
    _all_of(source)
    for scene_id in source.scene_ids("all"):
        for frame in source.scene(scene_id).frames:
            for view in frame.cameras:
                source.panoptic(view)


def _make_pandaset(root: Path) -> None:
    upright: dict[str, float] = {"w": 1, "x": 0, "y": 0, "z": 0}
    forward = {"w": 0.5**0.5, "x": -(0.5**0.5), "y": 0, "z": 0}
    lidar, camera = root / "002/lidar", root / "002/camera/front_camera"
    points = root / "002_compact/lidar"
    for folder in (lidar, camera, points, root / "002/annotations/cuboids_csv"):
        folder.mkdir(parents=True)

    def poses(heading: dict[str, float], z: float) -> list[Any]:
        return [{"position": {"x": 0, "y": y, "z": z}, "heading": heading} for y in (0, 0, 1)]

    write_json(lidar / "poses.json", poses(upright, 0))
    write_json(camera / "poses.json", poses(forward, 1.5))
    write_json(camera / "timestamps.json", [9.95, 10.05, 10.15])
    write_json(camera / "intrinsics.json", {"fx": 90, "fy": 90, "cx": 96, "cy": 54})
    Image.new("RGB", (192, 108)).save(camera / "02.jpg")
    road = np.stack(np.meshgrid([-4, 0, 4], [-4, 0, 4], [-0.3]), -1).reshape(-1, 3)
    for i in (1, 2):
        np.savez(
            points / f"{i:02d}.npz",
            xyz_cm=np.round(100 * road).astype(np.int16).T,
            intensity=np.arange(9, dtype=np.uint8),
            sensor=np.zeros(9, np.uint8),
            semseg=np.full(9, 7, np.uint8),
            timestamp=np.float64(10 + i / 10),
        )
    columns = ["uuid", "label", "yaw", *(f"position.{a}" for a in "xyz")]
    columns += [*(f"dimensions.{a}" for a in "xyz"), "cuboids.sibling_id", "cuboids.sensor_id"]
    car = ["a", "Car", 0.0, 3.0, 10.0, 0.4, 1.9, 4.6, 1.6, "-", -1]
    with (root / "002/annotations/cuboids_csv/02.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, car])


def _read_pandaset(root: Path) -> None:
    sequence = PandasetSequence(root, "002")
    scene = root / "out" / "scenes" / "002"
    scene.mkdir(parents=True)
    for frame in sequence.frames:
        sequence.write_sweep(frame, scene)
    sequence.write_scene(scene)


def _make_truth(root: Path) -> None:
    for name, layers in _LAYERS.items():
        scored = benchmark(name)
        shape = scored.grid.shape
        kinds: dict[str, Any] = {"flow": np.zeros((*shape, 2), np.float32)}
        kinds |= {"instances": np.zeros(shape, np.int32)}
        arrays = {layer: kinds.get(layer, np.ones(shape, np.bool_)) for layer in layers}
        truth = GroundTruth(
            grid=scored.grid,
            taxonomy=scored.taxonomy,
            semantics=np.full(shape, scored.taxonomy.n_classes - 1, np.uint8),
            **arrays,
        )
        assert scored.write is not None
        (root / name).mkdir()
        scored.write(root / name / _TRUTH.get(name, "labels.npz"), truth)


_LAYERS = {
    "occ3d_nuscenes": ("mask_lidar", "mask_camera"),
    "occ3d_waymo": ("mask_lidar", "mask_camera", "in_view"),
    "openoccupancy": (),
    "openocc_flow": ("flow",),
    "surroundocc": (),
    "semantic_kitti": ("mask_lidar",),
}
_TRUTH = {"openoccupancy": "a.npy", "surroundocc": "a.npy", "semantic_kitti": "000000.label"}


def _read_truth(root: Path) -> None:
    for folder in sorted(root.iterdir()):
        (first, *_) = sorted(folder.iterdir()) or [folder / "none.npz"]
        if folder.name == "semantic_kitti":
            first = folder / "000000.label"
        benchmark(folder.name).read(first)


def _tiny_state() -> dict[str, Any]:
    return {key: tensor.clone() for key, tensor in build("camera_tiny").state_dict().items()}


def _make_pth(root: Path) -> None:
    meta = {"epoch": 3, "hook_msgs": {"best": np.float64(51.5), "all": np.zeros(3)}}
    torch.save({"meta": meta, "state_dict": _tiny_state()}, root / "a.pth")


def _make_old_pth(root: Path) -> None:
    content = {"state_dict": _tiny_state()}
    torch.save(content, root / "a.pth", _use_new_zipfile_serialization=False)


def _read_pth(root: Path) -> None:
    convert(read_checkpoint(root / "a.pth").tensors, preset("camera_tiny"))


def _make_weights(root: Path) -> None:
    shipped = load_checkpoint(SHIPPED)
    counts = np.full((2, 1, 3, 4), 9, np.int64)
    evidence = CalibrationCounts(scene_ids=("a", "b"), seen=counts, right=counts - 1, free_id=2)
    reference = Reference.of([[{"x": 1.0, "y": 2.0}], [{"x": 3.0}]])
    log = LogDomain(
        source="city", log="city", licence="CC0", scenes=2, frames=2, reference=reference
    )
    table = np.full((5, 3, 3, 3), 9, np.int64)
    lidar = LidarReference(
        seen=table, free=table // 2, asked=table, errors=np.zeros(2), excess=np.ones(2)
    )
    domain = ConfidenceDomain(logs=(log,), lidar=lidar)
    notes = shipped.metadata | {
        EVIDENCE_KEY: json_text(evidence.to_json()),
        DOMAIN_KEY: json_text(domain.to_json()),
    }
    save_checkpoint(root / "a.safetensors", shipped.module, shipped.preset.name, notes)


def _read_weights(root: Path) -> None:
    path = root / "a.safetensors"
    model = load_checkpoint(path)
    for key, parse in (
        (CALIBRATION_KEY, Calibration.from_json),
        (EVIDENCE_KEY, CalibrationCounts.from_json),
        (DOMAIN_KEY, ConfidenceDomain.from_json),
    ):
        metadata_json(model.metadata, key, parse, path)


class _Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)


class _Objective:
    def __call__(self, network: nn.Module, batch: object, step: int) -> dict[str, torch.Tensor]:
        return {"loss": next(network.parameters()).sum()}


def _train(root: Path, start: int, state: dict[str, Any] | None) -> None:
    train(
        _Toy(),
        [],
        objective=_Objective(),
        config=TrainingConfig(steps=3, loaders=0),
        folder=root,
        identity=IDENTITY,
        start=start,
        state=state,
    )


def _make_state(root: Path) -> None:
    network, average = _Toy(), _Toy()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    network.layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    torch.save(
        {
            "step": 3,
            "identity": IDENTITY,
            "threads": torch.get_num_threads(),
            "stepping": {f"network.{k}": v for k, v in network.state_dict().items()},
            "average": average.state_dict(),
            "optimiser": optimiser.state_dict(),
            "scaler": torch.amp.GradScaler(enabled=False).state_dict(),
            "clock": {"seconds": 1.0, "bad": [["a", "b", "c"]], "terms": {"loss": 1.0}},
        },
        root / "state.pt",
    )
    (root / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')


def _read_state(root: Path) -> None:
    _train(root, *load_state(root, IDENTITY))


def _make_store(root: Path) -> None:
    header = StoreHeader(
        grid=GRID,
        taxonomy=OCC3D_NUSCENES,
        levels=(0.0, 0.5, 0.9, 0.99),
        licence="CC0",
        provenance={"config": {"min_confidence": 0.5}, "weights": "ab" * 32},
        run_id="run-1",
    )
    store = LabelStore.create(root / "labels.zarr", header)
    rng = np.random.default_rng(0)
    shape = (2, *GRID.shape)
    for scene_id in ("scene-1", "scene-2"):
        labels = SceneLabels(
            scene_id=scene_id,
            frame_tokens=(f"{scene_id}-0", f"{scene_id}-1"),
            timestamps_us=START_US + np.arange(2, dtype=np.int64) * 500_000,
            T_global_grid=np.stack([from_yaw(0.1 * k, [300 + k, 10, 0]) for k in range(2)]),
            semantics=rng.integers(0, 18, shape, dtype=np.uint8),
            confidence=rng.integers(0, 4, shape, dtype=np.uint8),
            mask=rng.integers(0, 16, shape, dtype=np.uint8),
        )
        store.write_scene(labels)
    store.quarantine("scene-3", "its picture is torn", "a traceback")
    reviews, token = Reviews(store), "scene-1-0"
    voxels = np.arange(3, dtype=np.int64)
    for entry in (
        VerdictEntry(scene_id="scene-1", tokens=(token,), verdict=next(iter(Verdict))),
        NoteEntry(scene_id="scene-1", token=token, note="a note"),
        EditEntry(scene_id="scene-1", token=token, voxels=voxels, class_id=1),
    ):
        reviews.add(entry, reviewer="me")


def _read_store(root: Path) -> None:
    place = root / "labels.zarr"
    verify(place)
    store = LabelStore.open(place)
    leftovers(store)
    reviews = Reviews(store)
    for scene_id in reviews.scene_ids():
        reviews.verdicts(scene_id)
        reviews.edits(scene_id)
    errors: list[Exception] = []
    for use in (
        _read_frames,
        info,
        lambda s: merge([s], root / "m.zarr"),
        lambda s: diff(s, s),
        lambda s: export(place, _FORMAT, _Log(), root / "out"),  # type: ignore[arg-type]
    ):
        try:
            use(store)
        except Exception as error:
            errors.append(error)
    prune(store)
    for failure in errors:
        raise failure


class _Log:
    """The log of the store's labels, for the names of its frames."""

    def scene(self, scene_id: str) -> Scene:
        frames = tuple(
            Frame(
                scene_id=scene_id,
                token=f"{scene_id}-{k}",
                timestamp_us=START_US + k * 500_000,
                T_global_ego=from_yaw(0.1 * k, [300 + k, 10, 0]),
                cameras=(),
                lidar=LidarSweep(path=Path("none"), timestamp_us=0, T_ego_lidar=np.eye(4)),
                past_sweeps=(),
            )
            for k in range(2)
        )
        return Scene(scene_id=scene_id, frames=frames)

    def fingerprint(self, scene_id: str) -> str:
        return ""


def _write_truth(path: Path, truth: GroundTruth) -> None:
    assert truth.mask_lidar is not None and truth.mask_camera is not None
    write_npz(path, {"semantics": truth.semantics, "mask_lidar": truth.mask_lidar})


_FORMAT = replace(
    benchmark("occ3d_nuscenes"),
    grid=GRID,
    path=lambda root, source, frame: root / f"{frame.token}.npz",
    write=_write_truth,
)


def _read_frames(store: LabelStore) -> None:
    for scene_id in store.scene_ids():
        scene = store.scene(scene_id)
        for k in range(len(scene)):
            scene.frame(k)


def _make_lists(root: Path) -> None:
    scene: dict[str, Any] = {"scene_id": "scene-1", "score": 0.5, "votes": {"lidar": 0.1}}
    scene |= {"expected_error": 0.1, "untrusted": 0.2, "flips": 0.0, "fit": None}
    scene |= {"pose_noise_m": 0.1, "problems": ["none"]}
    audit: dict[str, Any] = {"format": "label-audit", "format_version": 1, "what": "labels"}
    audit |= {"scenes": [scene], "by_class": {"lidar": {"car": [1, 2]}}, "by_range": {}}
    audit |= {"faults": [{"name": "pose", "scene_id": "scene-1", "evidence": "drift"}]}
    audit |= {"set_aside": {"scene-2": "torn"}, "notes": ["a note"]}
    write_json(root / "audit.json", audit)
    view = {"eye_m": [1, 2, 3], "target_m": [0, 0, 0], "up": [0, 0, 1]}
    write_json(root / "views.json", {"1": view})
    chosen = {"scene_id": "scene-1", "frame": 0, "token": "t"}
    write_json(root / "choice.json", {"chosen": [chosen]})
    (root / "labelled.txt").write_text("scene-1\nscene-2\n")


def _read_lists(root: Path) -> None:
    read_views(root / "views.json")
    parse_labelled(str(root / "labelled.txt"))
    problems = []
    for read in (
        lambda: read_audit(root / "audit.json"),
        lambda: read_audit(root / "audit.json", any_tool=True),
        lambda: read_reports([root / "choice.json"], {"scene-1": ("t",)}),
        lambda: read_reports([root / "audit.json"], {"scene-1": ("t",)}),
    ):
        try:
            read()
        except SetupError as error:
            problems.append(error)
    if problems:
        raise problems[0]


READERS = {
    "folder log": Reader(make=_make_folder, read=_read_folder),
    "nuScenes log": Reader(make=_make_nuscenes, read=_read_nuscenes),
    "Waymo records": Reader(make=_make_waymo, read=_read_waymo),
    "Waymo components": Reader(make=_make_components, read=_read_waymo),
    "PandaSet": Reader(make=_make_pandaset, read=_read_pandaset),
    "benchmark labels": Reader(make=_make_truth, read=_read_truth),
    "checkpoint .pth": Reader(make=_make_pth, read=_read_pth),
    "checkpoint of before 1.6": Reader(make=_make_old_pth, read=_read_pth),
    "weights .safetensors": Reader(make=_make_weights, read=_read_weights),
    "training state": Reader(make=_make_state, read=_read_state),
    "label store and reviews": Reader(make=_make_store, read=_read_store),
    "lists": Reader(make=_make_lists, read=_read_lists),
}
