"""What the labelling job costs beside the network's own time.

    python scripts/benchmarks/job.py overhead --root runs/city    # wall time over pure model time
    python scripts/benchmarks/job.py memory --root runs/city      # peak for short and long scenes
    python scripts/benchmarks/job.py scenes --scenes 10000        # scheduling, with a stub teacher

``overhead``: the network alone on prepared frames, one thread, then jobs of one worker on a single
core, of one and of two workers on all, on the same frames, all in one run. Wall time counts from
the first worker's being ready; the time until then is printed beside it. Scaling is that of two
workers on two cores over one on one. ``memory``: peak resident memory of a process that labels one
scene, whose frames are a city scene's, repeated. ``scenes``: one frame each of a small grid; what
the driver and the store cost.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import reporting
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from autolabel.cluster import worker_pool
from autolabel.cluster.driver import run_job
from autolabel.cluster.events import Events
from autolabel.cluster.ray_cluster import connect
from autolabel.cluster.summary import Progress
from autolabel.cluster.worker import CONTROL_GROUP, Job, Outcome
from autolabel.commands.options.label_log import DEFAULT_WEIGHTS
from autolabel.confidence.calibration import LEVELS, Calibration
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import write_labels
from autolabel.labeling.store_header import store_header
from datasets.cli.exit_codes import exit_code
from datasets.cli.scenes import scenes_of
from datasets.frames import CameraView, Frame, LidarSweep, Scene, SceneSource, earlier_frames
from datasets.geometry.grid import VoxelGrid
from datasets.labels.store import LabelStore, StoreHeader
from datasets.labels.voxel_labels import FrameLabels
from datasets.model_inputs import collate, prepare_frame
from datasets.sources.opening import open_source
from datasets.taxonomy import OCC3D_NUSCENES
from models.checkpoints.checkpoint import load_checkpoint
from models.inference.predictor import OccupancyPredictor, keep_freed_memory

ROOT = Path(__file__).resolve().parents[2]
SMALL = VoxelGrid(min_m=(-4.0, -4.0, -1.0), size_m=(0.4, 0.4, 0.4), shape=(20, 20, 8))


def main() -> int:
    parser = reporting.parser(__doc__, json=True)
    parser.add_argument("what", choices=("overhead", "memory", "scenes"))
    parser.add_argument("--root", type=Path, default=Path("runs/city"), help="folder of a city")
    parser.add_argument("--split", default="unlabeled")
    parser.add_argument("--weights", type=Path, default=DEFAULT_WEIGHTS)
    parser.add_argument("--frames", type=int, nargs=2, default=(40, 400), help="memory: of a scene")
    parser.add_argument("--scenes", type=int, default=10_000, help="scenes: how many")
    args = parser.parse_args()
    os.environ.setdefault("RAY_worker_niceness", "0")
    figures = {"overhead": overhead, "memory": memory, "scenes": many_scenes}[args.what](args)
    reporting.write_figures(figures, args.json)
    return 0


def overhead(args: argparse.Namespace) -> dict[str, Any]:
    model = load_checkpoint(args.weights)
    config, calibration = LabelingConfig(), Calibration.uncalibrated(18)
    spec = config.input_spec(model.preset.inputs)
    opener = functools.partial(
        open_source, "city", args.root.resolve(), past_sweeps=spec.past_sweeps, labelled=None
    )
    source = opener()
    scene_ids = scenes_of(source, args.split, root=args.root)
    torch.set_num_threads(1)
    keep_freed_memory()
    teacher = OccupancyPredictor(model.module, model.preset)
    model_s, reading_s, n = 0.0, 0.0, 0
    for scene_id in tqdm(scene_ids, desc="network alone", unit="scene"):
        frames = source.scene(scene_id).frames
        for k, frame in enumerate(frames):
            began = time.perf_counter()
            past = earlier_frames(frames, k, spec.past_frames)
            inputs = collate([prepare_frame(source, frame, spec, past)])
            reading_s += time.perf_counter() - began
            if n == 0:
                teacher.predict(inputs)
            began = time.perf_counter()
            teacher.predict(inputs)
            model_s, n = model_s + time.perf_counter() - began, n + 1
    print(f"{n} frames: network alone {model_s / n:.3f} s a frame, reading {reading_s / n:.3f} s")
    figures: dict[str, Any] = {"frames": n, "model_s": model_s, "reading_s": reading_s}
    header = store_header(model, calibration, config, source="city", licence=source.licence)
    connect("local", python_path=str(ROOT))
    for name, workers in (("one_core", 1), ("workers_1", 1), ("workers_2", 2)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            LabelStore.create(path / "labels.zarr", header)
            job = Job(
                open_source=opener,
                root=args.root.resolve(),
                weights=args.weights.resolve(),
                store=path / "labels.zarr",
                run_id=header.run_id,
                calibration=calibration,
                config=config,
            )
            events = (Pinning if name == "one_core" else Events)(path / "events.jsonl")
            run_job(job, scene_ids, source=source, workers=workers, events=events)
            events.close()
            lines = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
        times = {event: [e["time"] for e in lines if e["event"] == event] for event in EVENTS}
        wall = times["job ended"][0] - times["worker started"][0]
        start = times["worker started"][0] - times["job started"][0]
        ratio = wall / model_s
        figures[name] = {
            "wall_s": wall,
            "start_s": start,
            "over_model": ratio,
            "over_model_per_worker": ratio * workers,
        }
        print(
            f"{name.replace('_', ' ')}: {wall:.1f} s ({start:.1f} s more to start): {ratio:.3f} "
            f"times the network's own time; {ratio * workers:.3f} times each worker's share of it"
        )
    ray.shutdown()
    gain = figures["one_core"]["wall_s"] / figures["workers_2"]["wall_s"]
    figures["scaling_efficiency"] = gain / 2
    print(f"two workers are {gain:.2f} times as fast as one core: efficiency {50 * gain:.1f} %")
    return figures


EVENTS = ("job started", "worker started", "job ended")


class Pinning(Events):
    """Keeps a worker, once it has started, on one core."""

    def __call__(self, event: str, **fields: Any) -> None:
        super().__call__(event, **fields)
        if event == "worker started":
            pid = fields["worker"].rsplit(":", 1)[1]
            core = {min(os.sched_getaffinity(0))}
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), core)


class Repeated:
    """A scene of another log, its frames repeated to any length."""

    name = "repeated"

    def __init__(self, source: SceneSource, scene_id: str, length: int) -> None:
        self.source, self.scene_id, self.length = source, scene_id, length
        self.licence = source.licence

    def scene_ids(self, split: str) -> tuple[str, ...]:
        return (self.scene_id,)

    def scene(self, scene_id: str) -> Scene:
        frames = self.source.scene(scene_id).frames
        round_us = frames[-1].timestamp_us - frames[0].timestamp_us + 500_000
        turns = (divmod(k, len(frames)) for k in range(self.length))
        return Scene(
            scene_id=scene_id, frames=tuple(_later(frames[k], n, n * round_us) for n, k in turns)
        )

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        return self.source.read_image(view)

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        return self.source.read_points(sweep)

    def n_frames(self, scene_id: str) -> int:
        return self.length

    def fingerprint(self, scene_id: str) -> str:
        return f"{self.length} of {self.source.fingerprint(scene_id)}"


def _later(frame: Frame, turn: int, by_us: int) -> Frame:
    """The same frame with everything in it taken later."""

    def sweep(lidar_sweep: LidarSweep) -> LidarSweep:
        return replace(lidar_sweep, timestamp_us=lidar_sweep.timestamp_us + by_us)

    return replace(
        frame,
        token=f"{turn}-{frame.token}",
        timestamp_us=frame.timestamp_us + by_us,
        cameras=tuple(replace(c, timestamp_us=c.timestamp_us + by_us) for c in frame.cameras),
        lidar=None if frame.lidar is None else sweep(frame.lidar),
        past_sweeps=tuple(map(sweep, frame.past_sweeps)),
    )


def memory(args: argparse.Namespace) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    figures: dict[str, Any] = {}
    for n in args.frames:
        with context.Pool(1) as pool:
            seconds, peak = pool.apply(label_long, (args.root, args.split, args.weights, n))
        figures[f"frames_{n}"] = {"peak_mb": peak, "seconds": seconds}
        print(f"{n} frames: peak {peak:.0f} MB, {seconds / n:.2f} s a frame")
    short, long = (figures[f"frames_{n}"]["peak_mb"] for n in args.frames)
    figures["ratio"] = long / short
    print(f"the long scene takes {long / short:.3f} times the memory of the short one")
    return figures


def label_long(root: Path, split: str, weights: Path, n_frames: int) -> tuple[float, float]:
    """Seconds and peak megabytes of labelling a scene of so many frames."""
    torch.set_num_threads(1)
    keep_freed_memory()
    model = load_checkpoint(weights)
    config, calibration = LabelingConfig(), Calibration.uncalibrated(18)
    spec = config.input_spec(model.preset.inputs)
    log = open_source("city", root, past_sweeps=spec.past_sweeps, labelled=None)
    scene_id = log.scene_ids(split)[0]
    source = Repeated(log, scene_id, n_frames)
    header = store_header(model, calibration, config, source="city", licence=log.licence)
    teacher = OccupancyPredictor(model.module, model.preset)
    with tempfile.TemporaryDirectory() as folder:
        store = LabelStore.create(Path(folder) / "labels.zarr", header)
        began = time.perf_counter()
        with tqdm(total=n_frames, desc=f"{n_frames} frames") as bar:
            write_labels(
                store,
                source.scene(scene_id),
                source,
                teacher,
                calibration,
                config,
                on_frame=bar.update,
            )
        seconds = time.perf_counter() - began
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


class ManyScenes:
    """So many scenes of one frame without any file."""

    name = "many"
    licence = "CC0-1.0 (synthetic)"

    def __init__(self, n: int) -> None:
        self.n = n

    def scene_ids(self, split: str) -> tuple[str, ...]:
        return tuple(f"s{i:06d}" for i in range(self.n))

    def scene(self, scene_id: str) -> Scene:
        frame = Frame(
            scene_id=scene_id,
            token=scene_id,
            timestamp_us=int(scene_id[1:]),
            T_global_ego=np.eye(4),
            cameras=(),
            lidar=None,
            past_sweeps=(),
        )
        return Scene(scene_id=scene_id, frames=(frame,))

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        raise AssertionError("there are no files")

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        raise AssertionError("there are no files")

    def n_frames(self, scene_id: str) -> int:
        return 1

    def fingerprint(self, scene_id: str) -> str:
        return scene_id


class StubWorker:
    """Writes the same labels for every scene, without a network."""

    def __init__(self, job: Job) -> None:
        self.job, self.frames = job, 0

    def start(self) -> Outcome:
        self.store = LabelStore.open(self.job.store)
        self.source = self.job.open_source()
        rng = np.random.default_rng(0)
        self.labels = rng.integers(0, 8, SMALL.shape, dtype=np.uint8)
        return Outcome(kind="ready", node=ray.get_runtime_context().get_node_id())

    def label(self, scene_id: str) -> Outcome:
        began = time.monotonic()
        (frame,) = self.source.scene(scene_id).frames
        inputs = self.source.fingerprint(scene_id)
        with self.store.writer(scene_id, 1, inputs=inputs) as writer:
            writer.append(
                FrameLabels(
                    token=frame.token,
                    timestamp_us=frame.timestamp_us,
                    T_global_grid=frame.T_global_ego,
                    semantics=self.labels,
                    confidence=self.labels,
                    mask=self.labels,
                )
            )
        self.frames += 1
        return Outcome(kind="done", frames=1, seconds=time.monotonic() - began)

    @ray.method(concurrency_group=CONTROL_GROUP)  # type: ignore[untyped-decorator]
    def heartbeat(self) -> int:
        return self.frames

    @ray.method(concurrency_group=CONTROL_GROUP)  # type: ignore[untyped-decorator]
    def abandon(self) -> None:
        """Scenes are too short for that."""

    def close(self) -> None:
        """It has nothing of its own."""


def start_stub(job: Job) -> Any:
    return ray.remote(num_cpus=1, concurrency_groups={CONTROL_GROUP: 1})(StubWorker).remote(job)


def many_scenes(args: argparse.Namespace) -> dict[str, Any]:
    worker_pool.start_worker = start_stub  # type: ignore[attr-defined]
    header = StoreHeader(
        grid=SMALL,
        taxonomy=OCC3D_NUSCENES,
        levels=LEVELS,
        licence=ManyScenes.licence,
        provenance={"weights_sha256": "none"},
        run_id="benchmark",
    )
    source = ManyScenes(args.scenes)
    connect("local", python_path=str(ROOT))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    with tempfile.TemporaryDirectory() as folder, tqdm(total=args.scenes, unit="scene") as bar:
        path = Path(folder) / "labels.zarr"
        LabelStore.create(path, header)
        job = Job(
            open_source=functools.partial(ManyScenes, args.scenes),
            root=Path(folder),
            weights=Path(folder),
            store=path,
            run_id=header.run_id,
            calibration=Calibration.uncalibrated(18),
            config=LabelingConfig(),
        )

        def show(progress: Progress) -> None:
            bar.update(progress.scenes_done - bar.n)

        began = time.perf_counter()
        summary = run_job(job, source.scene_ids("all"), source=source, on_progress=show)
        wall = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        workers = int(ray.cluster_resources()["CPU"])
        openings = []
        for _ in range(3):
            began = time.perf_counter()
            n = len(LabelStore.open(path).scene_ids())
            openings.append(time.perf_counter() - began)
        began = time.perf_counter()
        resumed = run_job(job, source.scene_ids("all"), source=source)
        resuming = time.perf_counter() - began
    ray.shutdown()
    assert n == summary.scenes == resumed.skipped == args.scenes
    per_scene = 1e3 * (wall * workers - summary.worker_s) / n
    figures = {
        "scenes": n,
        "workers": workers,
        "wall_s": wall,
        "scenes_per_s": n / wall,
        "overhead_ms_per_scene_and_worker": per_scene,
        "writing_ms_per_scene": 1e3 * summary.worker_s / n,
        "driver_mb": peak,
        "driver_grew_mb": peak - before,
        "open_s": statistics.median(openings),
        "resume_s": resuming,
    }
    for name, value in figures.items():
        print(f"{name.replace('_', ' ')}: {value:,.2f}")
    return figures


if __name__ == "__main__":
    sys.exit(exit_code(main))
