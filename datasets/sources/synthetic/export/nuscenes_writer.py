"""A simulated drive as nuScenes rows and files, with Occ3D ground truth beside them.

Formats: nuScenes v1.0 tables (13 JSON files), ``samples|sweeps/<channel>/`` with jpg and
``.pcd.bin`` (float32 x, y, z, intensity, ring), ``gts/<scene>/<token>/labels.npz`` as in Occ3D and
``openocc_v2/<scene>/<token>/labels.npz`` (with flow) as in OpenOcc v2.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.benchmarks import occ3d_nuscenes, openocc_flow
from datasets.benchmarks.class_mapping import OCC3D_TO_OPENOCC_FLOW
from datasets.frames import CameraView
from datasets.geometry.transforms import Transform, apply, from_yaw, inverse, to_quaternion
from datasets.sources.synthetic.export.boxes import points_in_box, visibility_tokens
from datasets.sources.synthetic.export.labels import CityLabeler, observed_labels
from datasets.sources.synthetic.export.nuscenes_tables import LIDAR, TABLES, Rows, token
from datasets.sources.synthetic.sensors.cameras import (
    CAMERAS,
    CameraModel,
    camera_rig,
    take_picture,
)
from datasets.sources.synthetic.sensors.lidar import Sweep, lidar_mount, take_sweep
from datasets.sources.synthetic.sensors.ray_tracing import Stage
from datasets.sources.synthetic.sensors.weather import Light, draw_light
from datasets.sources.synthetic.traffic.population import draw_world, pose_on_route
from datasets.sources.synthetic.world.builder import actor_poses

KEY_EVERY = 10  # sweeps; 20 Hz LiDAR, 2 Hz key-frames
SWEEP_US = 50_000
ANNOTATED_M = 75.0
SURVEY_M = 48.0  # how far before and after the drive its LiDAR has been, too
_SURVEY_STEP_M = 4.0
_LABEL_REACH_M = 75.0
_Returns = tuple[NDArray[np.float64], NDArray[np.float32]]  # origin and points, scene frame


@dataclass(frozen=True, slots=True, kw_only=True)
class DriveSpec:
    """What to simulate.

    Attributes:
        entropy: seed, split and index: everything about the scene follows from them.
        name: scene name.
        number: unique over the city; sets the time of the drive.
        frames: key-frames.
        lead_sweeps: sweeps before the first key-frame.
        height, width: pixels.
        pose_noise_m, pose_noise_deg: standard deviations of the error of every ego pose in the
            tables: along each axis, and of the heading.
        flat_poses: the ego poses in the tables lie at z = 0.
    """

    entropy: tuple[int, int, int]
    name: str
    number: int
    frames: int
    lead_sweeps: int
    height: int
    width: int
    pose_noise_m: float = 0.0
    pose_noise_deg: float = 0.0
    flat_poses: bool = False

    def rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng((*self.entropy, *stream))

    def token(self, *parts: object) -> str:
        """A 32-digit token, unique to the drive and the parts."""
        return token(*self.entropy, *parts)


class _Drive:
    """The simulation of one scene, row by row."""

    def __init__(self, root: Path, spec: DriveSpec) -> None:
        self.root, self.spec = root, spec
        seconds = (spec.lead_sweeps + (spec.frames - 1) * KEY_EVERY) * SWEEP_US * 1e-6
        self.light: Light = draw_light(spec.rng(1))
        lit = self.light.lamps > 0 or self.light.rain > 0
        self.world = draw_world(spec.rng(0), seconds, lit=lit, rain=self.light.rain > 0)
        self.rig = camera_rig(spec.rng(2), spec.height, spec.width)
        self.stage = Stage(self.world)
        self._poses: dict[int, Transform] = {}
        rng = spec.rng(3)
        origin_m = (*rng.uniform(300, 1800, 2), 0.0)
        self.T_global_scene = from_yaw(float(rng.uniform(-np.pi, np.pi)), origin_m)
        self.start_us = 1_600_000_000_000_000 + spec.number * 100_000_000
        self.rows: Rows = {name: [] for name in TABLES}
        self.sample_tokens = [spec.token("sample", f) for f in range(spec.frames)]

    # time: microseconds since the first sweep
    def key_us(self, frame: int) -> int:
        return (self.spec.lead_sweeps + frame * KEY_EVERY) * SWEEP_US

    def _T_scene_ego(self, at_us: int) -> Transform:  # noqa: N802
        if at_us not in self._poses:
            s = self.world.ego_s(at_us * 1e-6)
            self._poses[at_us] = pose_on_route(self.world.layout, s)
        return self._poses[at_us]

    def run(self) -> Rows:
        spec = self.spec
        n_sweeps = spec.lead_sweeps + (spec.frames - 1) * KEY_EVERY + 1
        sweeps = [self._sweep(i) for i in range(n_sweeps)]
        returns = [*self._still_returns(sweeps), *self._survey(n_sweeps)]
        truth = CityLabeler(self.stage)
        tracks: dict[int, list[dict[str, Any]]] = {}
        pictures: dict[str, list[dict[str, Any]]] = {c.name: [] for c in self.rig}
        for frame in range(spec.frames):
            views = [self._picture(frame, camera, pictures[camera.name]) for camera in self.rig]
            self._labels(frame, truth, sweeps, returns, views)
            self._annotations(frame, sweeps[spec.lead_sweeps + frame * KEY_EVERY], tracks)
        chains = [[r for r in self.rows["sample_data"] if r["fileformat"] == "pcd"]]
        for chain in (*chains, *pictures.values(), *tracks.values()):
            _link(chain)
        self._scene_rows(tracks)
        return self.rows

    def _calibration(self, channel: str) -> str:
        return self.spec.token("calibration", channel)

    def _record(
        self, channel: str, at_us: int, frame: int, path: str, *, key: bool, size: tuple[int, int]
    ) -> dict[str, Any]:
        """Add a sample_data row and its ego pose."""
        name = self.spec.token("data", channel, at_us)
        T = self._written_pose(channel, at_us)
        self.rows["ego_pose"].append(
            {
                "token": name,
                "timestamp": self.start_us + at_us,
                "rotation": to_quaternion(T).tolist(),
                "translation": T[:3, 3].tolist(),
            }
        )
        row = {
            "token": name,
            "sample_token": self.sample_tokens[frame],
            "ego_pose_token": name,
            "calibrated_sensor_token": self._calibration(channel),
            "timestamp": self.start_us + at_us,
            "fileformat": "pcd" if channel == LIDAR else "jpg",
            "is_key_frame": key,
            "height": size[0],
            "width": size[1],
            "filename": path,
            "prev": "",
            "next": "",
        }
        self.rows["sample_data"].append(row)
        return row

    def _written_pose(self, channel: str, at_us: int) -> Transform:
        """Ego to global as the tables have it, with the errors that the spec asks for."""
        spec = self.spec
        T = self.T_global_scene @ self._T_scene_ego(at_us)
        if spec.pose_noise_m > 0 or spec.pose_noise_deg > 0:
            rng = spec.rng(7, (*CAMERAS, LIDAR).index(channel), at_us)
            shift, turn = rng.normal(0, spec.pose_noise_m, 3), rng.normal(0, spec.pose_noise_deg)
            T = T @ from_yaw(np.radians(turn), shift.tolist())
        if spec.flat_poses:
            T[2, 3] = 0.0
        return T

    def _path(self, channel: str, at_us: int, ending: str, *, key: bool) -> str:
        folder = "samples" if key else "sweeps"
        name = f"city-{self.spec.name}__{channel}__{self.start_us + at_us}{ending}"
        return f"{folder}/{channel}/{name}"

    def _sweep(self, i: int) -> Sweep:
        at_us = i * SWEEP_US
        T = self._T_scene_ego(at_us) @ lidar_mount()
        sweep = take_sweep(self.stage.at(at_us * 1e-6), T, self.light, self.spec.rng(4, i))
        offset = i - self.spec.lead_sweeps
        key = offset >= 0 and offset % KEY_EVERY == 0
        nearest = min(max(round(offset / KEY_EVERY), 0), self.spec.frames - 1)
        path = self._path(LIDAR, at_us, ".pcd.bin", key=key)
        sweep.points.tofile(self.root / path)
        self._record(LIDAR, at_us, nearest, path, key=key, size=(0, 0))
        return sweep

    def _picture(self, frame: int, camera: CameraModel, chain: list[dict[str, Any]]) -> CameraView:
        at_us = self.key_us(frame) + camera.delay_us
        moment = self.stage.at(at_us * 1e-6)
        T = self._T_scene_ego(at_us)
        rng = self.spec.rng(5, frame, CAMERAS.index(camera.name))
        picture = Image.fromarray(take_picture(moment, camera, T, self.light, rng))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=92)
        path = self._path(camera.name, at_us, ".jpg", key=True)
        (self.root / path).write_bytes(buffer.getvalue())
        size = (camera.height, camera.width)
        chain.append(self._record(camera.name, at_us, frame, path, key=True, size=size))
        return CameraView(
            name=camera.name,
            path=self.root / path,
            timestamp_us=self.start_us + at_us,
            width=camera.width,
            height=camera.height,
            intrinsics=camera.intrinsics,
            T_ego_camera=inverse(self._T_scene_ego(self.key_us(frame))) @ T @ camera.T_ego_camera,
        )

    def _still_returns(self, sweeps: list[Sweep]) -> list[_Returns]:
        """Of every second sweep."""
        return [
            _still(sweeps[i], self._T_scene_ego(i * SWEEP_US) @ lidar_mount())
            for i in range(0, len(sweeps), 2)
        ]

    def _survey(self, n_sweeps: int) -> list[_Returns]:
        """Coarse sweeps from before and after the drive; for the labels alone, never written."""
        out, end = [], (n_sweeps - 1) * SWEEP_US * 1e-6
        layout, length = self.world.layout, self.world.ego_s(end)
        moments = self.stage.at(0.0), self.stage.at(end)
        for i, far in enumerate(np.arange(_SURVEY_STEP_M, SURVEY_M + 0.1, _SURVEY_STEP_M)):
            for side, (s, moment) in enumerate(
                zip((-float(far), length + float(far)), moments, strict=True)
            ):
                T = pose_on_route(layout, s) @ lidar_mount()
                rng = self.spec.rng(6, i, side)
                out.append(_still(take_sweep(moment, T, self.light, rng, step=2), T))
        return out

    def _labels(
        self,
        frame: int,
        truth: CityLabeler,
        sweeps: list[Sweep],
        returns: list[_Returns],
        views: list[CameraView],
    ) -> None:
        """Observed by the key sweep, four sweeps around it, and still returns from nearby."""
        T = self._T_scene_ego(self.key_us(frame))
        key_sweep = self.spec.lead_sweeps + frame * KEY_EVERY
        near = [
            i
            for i in (key_sweep - 9, key_sweep - 5, key_sweep, key_sweep + 5, key_sweep + 9)
            if 0 <= i < len(sweeps)
        ]
        rays = []
        for i in near:
            T_ego_lidar = inverse(T) @ self._T_scene_ego(i * SWEEP_US) @ lidar_mount()
            rays.append((T_ego_lidar[:3, 3], apply(T_ego_lidar, sweeps[i].points[:, :3])))
        close = [p for origin, p in returns if np.linalg.norm(origin - T[:3, 3]) < _LABEL_REACH_M]
        semantics = truth.semantics(T, self.key_us(frame) * 1e-6)
        labels = observed_labels(semantics, rays, close, inverse(T), views)
        flow = truth.flow(semantics, T, self.key_us(frame) * 1e-6)
        flow[labels.semantics == occ3d_nuscenes.TAXONOMY.free_id] = 0
        with_flow = OCC3D_TO_OPENOCC_FLOW.apply(
            replace(labels, mask_lidar=None, mask_camera=None, flow=flow)
        )
        of_frame = (self.root, self.spec.name, self.sample_tokens[frame])
        occ3d_nuscenes.write_labels(occ3d_nuscenes.labels_path(*of_frame), labels)
        openocc_flow.write_labels(openocc_flow.labels_path(*of_frame), with_flow)

    def _annotations(
        self, frame: int, sweep: Sweep, tracks: dict[int, list[dict[str, Any]]]
    ) -> None:
        at_us = self.key_us(frame)
        T_scene_ego = self._T_scene_ego(at_us)
        points = apply(T_scene_ego @ lidar_mount(), sweep.points[:, :3])
        points = points[np.argsort(points[:, 0], kind="stable")]
        actors = self.world.actors
        poses = actor_poses(actors, self.world.layout, at_us * 1e-6)
        near = [
            i
            for i, T in enumerate(poses)
            if np.linalg.norm(T[:2, 3] - T_scene_ego[:2, 3]) <= ANNOTATED_M
        ]
        levels = visibility_tokens(
            [actors[i] for i in near],
            [poses[i] for i in near],
            T_scene_ego,
            self.stage.at(at_us * 1e-6),
        )
        # boxes are drawn around the returns of the key sweep, so they share the error of its pose
        T_global_scene = self.T_global_scene
        if self.spec.pose_noise_m > 0 or self.spec.pose_noise_deg > 0 or self.spec.flat_poses:
            T_global_scene = self._written_pose(LIDAR, at_us) @ inverse(T_scene_ego)
        for number, level in zip(near, levels, strict=True):
            actor, pose = actors[number], poses[number]
            center = apply(pose, np.asarray(actor.center_m))
            T = T_global_scene @ pose
            row = {
                "token": self.spec.token("annotation", number, frame),
                "sample_token": self.sample_tokens[frame],
                "instance_token": self.spec.token("instance", number),
                "visibility_token": level,
                "attribute_tokens": [token("attribute", actor.attribute)]
                if actor.attribute
                else [],
                "translation": apply(T_global_scene, center).tolist(),
                "size": [actor.size_m[1], actor.size_m[0], actor.size_m[2]],
                "rotation": to_quaternion(T).tolist(),
                "prev": "",
                "next": "",
                "num_lidar_pts": points_in_box(points, actor, pose),
                "num_radar_pts": 0,
            }
            self.rows["sample_annotation"].append(row)
            tracks.setdefault(number, []).append(row)

    def _scene_rows(self, tracks: dict[int, list[dict[str, Any]]]) -> None:
        spec, rows = self.spec, self.rows
        for number, chain in sorted(tracks.items()):
            rows["instance"].append(
                {
                    "token": spec.token("instance", number),
                    "category_token": token("category", self.world.actors[number].category),
                    "nbr_annotations": len(chain),
                    "first_annotation_token": chain[0]["token"],
                    "last_annotation_token": chain[-1]["token"],
                }
            )
        for channel, T, intrinsics in (
            *((c.name, c.T_ego_camera, c.intrinsics.tolist()) for c in self.rig),
            (LIDAR, lidar_mount(), []),
        ):
            rows["calibrated_sensor"].append(
                {
                    "token": self._calibration(channel),
                    "sensor_token": token("sensor", channel),
                    "translation": T[:3, 3].tolist(),
                    "rotation": to_quaternion(T).tolist(),
                    "camera_intrinsic": intrinsics,
                }
            )
        for frame, name in enumerate(self.sample_tokens):
            rows["sample"].append(
                {
                    "token": name,
                    "timestamp": self.start_us + self.key_us(frame),
                    "scene_token": spec.token("scene"),
                    "prev": "",
                    "next": "",
                }
            )
        _link(rows["sample"])
        rows["log"].append(
            {
                "token": spec.token("log"),
                "logfile": f"city-{spec.name}",
                "vehicle": "simulated",
                "date_captured": "2020-09-13",
                "location": "built-in-city",
            }
        )
        layout, light = self.world.layout, self.light
        way = "turning" if layout.turns else "along the street"
        plan = f"{layout.main.lanes} lanes, {len(layout.streets) - 1} side streets, {way}"
        rows["scene"].append(
            {
                "token": spec.token("scene"),
                "log_token": spec.token("log"),
                "nbr_samples": spec.frames,
                "first_sample_token": self.sample_tokens[0],
                "last_sample_token": self.sample_tokens[-1],
                "name": spec.name,
                "description": f"simulated {layout.district.name}, {light.weather}, {plan}",
            }
        )


def write_drive(root: Path, spec: DriveSpec) -> Rows:
    """Simulate one scene, write its files under ``root`` (folders exist) and return its rows."""
    return _Drive(root, spec).run()


def data_folders() -> tuple[str, ...]:
    """Folders of a root that ``write_drive`` writes into."""
    return (*(f"samples/{c}" for c in (*CAMERAS, LIDAR)), f"sweeps/{LIDAR}", "gts", "openocc_v2")


def _still(sweep: Sweep, T_scene_lidar: Transform) -> _Returns:
    points = apply(T_scene_lidar, sweep.points[sweep.still, :3])
    return T_scene_lidar[:3, 3], points.astype(np.float32)


def _link(chain: Sequence[dict[str, Any]]) -> None:
    for a, b in pairwise(chain):
        a["next"], b["prev"] = b["token"], a["token"]
