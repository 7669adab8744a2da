"""Label a split of a log with a teacher into a label store.

    python autolabel/run.py --split unlabeled
    python autolabel/run.py --source nuscenes --root DIR --weights FILE --split all --store OUT
    ray submit CLUSTER.yaml autolabel/run.py --split unlabeled
    ray job submit --working-dir . -- python autolabel/run.py --split unlabeled --store OUT

Started again with the same options it continues and relabels nothing. Exit codes: 0 all labelled,
1 some scene was set aside (the store says why), 2 the job could not start, 130 stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, get_args

import ray
import torch

import models
from autolabel.cluster.driver import run_job
from autolabel.cluster.events import Events
from autolabel.cluster.progress import Reporter, describe
from autolabel.cluster.ray_cluster import connect
from autolabel.cluster.worker import Job
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.cost_estimate import estimate
from autolabel.labeling.store_header import store_header
from autolabel.labeling.stored_calibration import calibration_of, drift_of, risk_bound_of
from datasets.cli.exit_codes import exit_code, scenes_of
from datasets.errors import SetupError
from datasets.frames import SceneSource, elongation_source
from datasets.labels.calibration_record import Test
from datasets.labels.store import LabelStore, StoreHeader
from datasets.sources.deadlines import TimedSource, open_within
from datasets.sources.opening import SOURCES, open_source
from datasets.splits import parse_labelled
from datasets.storage.backend import StorePath, parse_store_path
from datasets.storage.remote_path import absolute
from models.checkpoints.checkpoint import (
    load_checkpoint,
)

DEFAULT_WEIGHTS = Path(models.__file__).parent / "weights" / "city_tiny_teacher.safetensors"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SetupError(f"{message}; see --help")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for an unknown or bad option."""
    parser = _Parser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--split", required=True, help="split of the log, or scene ids separated by commas")
    add("--source", choices=SOURCES, default="city", help="kind of log (city: the built-in one)")
    add(
        "--root",
        type=Path,
        help="folder of the log, or s3://BUCKET/PREFIX (city: runs/city, made on first use)",
    )
    add(
        "--labelled", help="share in %% or file of scenes that count as labelled (20, as published)"
    )
    add("--weights", type=Path, default=DEFAULT_WEIGHTS, help="teacher (the packaged city_tiny)")
    add("--preset", help="refuse weights of any other preset")
    add(
        "--store",
        type=parse_store_path,
        default=Path("runs/labels.zarr"),
        help="label store to write: a folder, or s3://BUCKET/PREFIX",
    )
    add("--dry-run", action="store_true", help="print scenes, frames, bytes and hours, and end")
    add("--workers", type=int, help="actors (as many as there is room for, also later)")
    add(
        "--gpus-per-worker",
        type=float,
        help="GPU share of an actor; 0: on the CPU (1 if this machine has a GPU, else 0)",
    )
    add("--batch", type=int, help="frames the network takes together (1 on a CPU, 4 on a GPU)")
    add(
        "--readers",
        type=int,
        help="threads of an actor that read, and as many that finish labels\n"
        "(1; on a GPU up to 4, as its share of this machine's cores allows)",
    )
    add("--retries", type=int, default=2, help="further tries of a scene whose worker failed")
    add(
        "--stall-timeout",
        type=float,
        default=1800.0,
        metavar="SECONDS",
        help="kill a worker that finishes no frame for so long, and give up on a log that does\n"
        "not answer (1800)",
    )
    add(
        "--events",
        type=Path,
        metavar="FILE",
        help="append what happens as JSON lines (beside a local store: STORE.events.jsonl)",
    )
    add("--address", help="Ray cluster to join: HOST:PORT, auto, or local")
    add("--min-confidence", type=float, help="trust labels from this P(right) on (0.5)")
    add(
        "--max-error",
        type=float,
        metavar="SHARE",
        help="trust as many labels as a promise allows: at most this share of the trusted\n"
        "occupied and of the trusted free voxels is wrong (0.02 is 2 %%)",
    )
    add("--promise-confidence", type=float, help="that the promise of --max-error holds (0.9)")
    add(
        "--promise-test",
        choices=get_args(Test),
        help="t (default): Student's over calibration scenes; exact: whatever their distribution,\n"
        "which takes far more of them",
    )
    add(
        "--free-passes",
        type=int,
        help="LiDAR rays that must pass a trusted free voxel (as measured with the calibration)",
    )
    add("--past-sweeps", type=int, help="earlier LiDAR sweeps (as the teacher was built for)")
    add("--fast", action="store_true", help="predict in bfloat16: faster, hardly other labels")
    add(
        "--flips",
        action="store_true",
        help="average over mirrored inputs: better, four times slower",
    )
    add(
        "--no-refine",
        action="store_true",
        help="label every frame on its own (the weights may know how to use the whole drive)",
    )
    add("--evidence", action="store_true", help="store LiDAR hits and passes of every voxel")
    args = parser.parse_args(argv)
    for name in ("workers", "batch", "readers", "stall_timeout"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            parser.error(f"--{name.replace('_', '-')} must be positive, got {value}")
    if args.gpus_per_worker is None:
        args.gpus_per_worker = 1.0 if torch.cuda.is_available() else 0.0
    if args.retries < 0 or args.gpus_per_worker < 0:
        parser.error("--retries and --gpus-per-worker must not be negative")
    if args.max_error is None:
        if args.promise_confidence is not None or args.promise_test is not None:
            parser.error("--promise-... are of the promise that --max-error asks for")
    elif args.min_confidence is not None or args.free_passes is not None:
        parser.error("--max-error decides what is trusted: leave out what else does")
    elif not 0 < args.max_error < 1 or not 0 < (args.promise_confidence or 0.9) < 1:
        parser.error("--max-error and --promise-confidence must lie between 0 and 1")
    on_gpu = args.gpus_per_worker > 0
    args.batch = args.batch or (4 if on_gpu else 1)
    args.readers = args.readers or (_readers_on_gpu(args.gpus_per_worker) if on_gpu else 1)
    if args.root is None:
        if args.source != "city":
            parser.error(f"--source {args.source} needs --root")
        args.root = Path("runs/city")
    return args


def _readers_on_gpu(gpus_per_worker: float) -> int:
    """As many as leave each worker's other threads a core, if the cluster's nodes are like this."""
    workers = max(1, torch.cuda.device_count()) / gpus_per_worker
    return max(1, min(4, (int((os.cpu_count() or 1) / workers) - 1) // 2))


def run(args: argparse.Namespace, python_path: str | None = None) -> int:
    """Set up and run the job, or say what it would cost; gives the exit code.

    Raises:
        SetupError: before anything is labelled.
    """
    try:
        config = LabelingConfig(
            min_confidence=0.5 if args.min_confidence is None else args.min_confidence,
            past_sweeps=args.past_sweeps,
            free_passes=args.free_passes,
            store_evidence=args.evidence,
            fast=args.fast,
            flips=args.flips,
            batch=args.batch,
        )
    except ValueError as error:
        raise SetupError(str(error)) from error
    teacher = load_checkpoint(args.weights, expect_preset=args.preset)
    if args.preset is None and not teacher.preset.inputs.lidar:
        name = teacher.preset.name
        raise SetupError(
            f"{args.weights}: weights of {name}, a student without LiDAR; if it shall label all "
            f"the same, add --preset {name}"
        )
    calibration = calibration_of(teacher, args.weights)
    if calibration.refiner is not None and not args.no_refine:
        config = replace(config, refinement=calibration.refiner.config)
    elif calibration.refiner is not None:
        print("warning: --no-refine: confidence was calibrated on refined labels", file=sys.stderr)
    if args.max_error is not None:
        made = risk_bound_of(
            teacher,
            calibration,
            config,
            weights=args.weights,
            max_error=args.max_error,
            confidence=args.promise_confidence or 0.9,
            test=args.promise_test or "t",
        )
        print(made.to_text(teacher.preset.taxonomy.names))
        config = replace(config, risk_bound=made)
    local = isinstance(args.store, Path)
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and local and not args.store.is_absolute():
        print(
            f"warning: --store {args.store} lies in the submitted job's temporary copy of the "
            "working folder; name an absolute path to keep it",
            file=sys.stderr,
        )
    root, past_sweeps = absolute(args.root), config.input_spec(teacher.preset.inputs).past_sweeps
    labelled = parse_labelled(args.labelled) if args.labelled else None
    opener = functools.partial(
        open_source, args.source, root, past_sweeps=past_sweeps, labelled=labelled
    )
    if args.source == "city":  # made on first use, which takes its time
        source: SceneSource = opener()
    else:
        source = open_within(args.stall_timeout, opener, root=args.root)
    timed = TimedSource(source, args.stall_timeout, root=args.root)
    elongation_source(source, teacher.preset.inputs.point_features)
    scene_ids = scenes_of(timed, args.split, root=args.root)
    header = store_header(
        teacher,
        calibration,
        config,
        source=args.source,
        licence=source.licence,
        device="cuda" if args.gpus_per_worker > 0 else "cpu",
    )
    where: StorePath = args.store.resolve() if local else args.store
    if args.dry_run:
        there = _present(where, header)
        print(
            estimate(
                [s for s in scene_ids if s not in there],
                source,
                teacher,
                calibration,
                config,
                header,
                workers=args.workers,
                readers=args.readers,
            ).describe()
        )
        return 0
    LabelStore.open_or_create(where, header)
    job = Job(
        open_source=opener,
        root=root,
        weights=args.weights.resolve(),
        store=where,
        run_id=header.run_id,
        calibration=calibration,
        config=config,
        gpus_per_worker=args.gpus_per_worker,
        readers=args.readers,
        retries=args.retries,
        stall_s=args.stall_timeout,
    )
    connect(args.address, python_path=python_path)
    if args.events is None and isinstance(where, Path):
        args.events = where.with_name(f"{where.name}.events.jsonl")
    with contextlib.closing(Events(args.events)) as events, Reporter() as report:
        summary = run_job(
            job,
            scene_ids,
            source=timed,
            workers=args.workers,
            on_progress=report,
            events=events,
        )
    print(describe(summary, args.store))
    if warning := drift_of(
        where, scene_ids, teacher, args.weights, promised=args.max_error is not None
    ):
        print(warning, file=sys.stderr)
    return 1 if summary.failures else 0


def _present(where: StorePath, header: StoreHeader) -> tuple[str, ...]:
    """Scenes that a store of this job has; none if there is no store yet."""
    try:
        store = LabelStore.open(where)
    except SetupError:
        return ()
    return store.scene_ids() if store.header.run_id == header.run_id else ()


def main(argv: Sequence[str] | None = None, *, python_path: str | None = None) -> int:
    """Run the command; gives the exit code.

    Args:
        python_path: folder from which the workers import this package; None: as installed.
    """
    try:
        return exit_code(lambda: run(parse(argv), python_path), goes_on=True, leaves="at once")
    finally:
        ray.shutdown()
