"""Label a split of a log with a teacher into a label store."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import ray
import torch

from autolabel.cluster.driver import run_job
from autolabel.cluster.events import Events
from autolabel.cluster.progress import Reporter, describe
from autolabel.cluster.ray_cluster import connect
from autolabel.cluster.worker import Job
from autolabel.commands.options.label_log import EVERY_GROUP
from autolabel.confidence.calibration import Calibration
from autolabel.confidence.held_out_sweeps import HELD_OUT_SWEEPS
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.cost_estimate import estimate
from autolabel.labeling.store_header import store_header
from autolabel.labeling.stored_calibration import (
    calibration_of,
    domain_of,
    risk_bound_of,
)
from datasets.cli.logs import provenance_of
from datasets.cli.next_step import print_next
from datasets.cli.scenes import scenes_of
from datasets.errors import SetupError
from datasets.files.printable import printable
from datasets.files.store_path import StorePath
from datasets.frames import SceneSource, elongation_source
from datasets.labels.store import LabelStore, StoreHeader
from datasets.labels.validity import (
    DOMAIN_KEY,
    LOG_KEY,
    UNVERIFIED,
    recorded_reasons,
    validity_of,
)
from datasets.sources.deadlines import TimedSource, open_within
from datasets.sources.opening import open_source
from datasets.sources.synthetic.city import MARKER
from datasets.splits import parse_labelled
from datasets.storage.remote_path import absolute
from models.checkpoints.checkpoint import LoadedModel, load_checkpoint

ADAPT = "; scripts/calibrate.py --adapt makes it hold there, from a few labeled or reviewed frames"


def _with_machine_defaults(args: argparse.Namespace) -> None:
    """Fill in what depends on the GPUs of this machine."""
    if args.gpus_per_worker is None:
        args.gpus_per_worker = 1.0 if torch.cuda.is_available() else 0.0
    on_gpu = args.gpus_per_worker > 0
    args.batch = args.batch or (4 if on_gpu else 1)
    args.readers = args.readers or (_readers_on_gpu(args.gpus_per_worker) if on_gpu else 1)


def _readers_on_gpu(gpus_per_worker: float) -> int:
    """As many as leave each worker's other threads a core, if the cluster's nodes are like this."""
    workers = max(1, torch.cuda.device_count()) / gpus_per_worker
    return max(1, min(4, (int((os.cpu_count() or 1) / workers) - 1) // 2))


def run(args: argparse.Namespace, *, python_path: str | None = None) -> int:
    """Set up and run the job, or say what it would cost; gives the exit code.

    Args:
        python_path: folder from which the workers import this package; None: as installed.

    Raises:
        SetupError: before anything is labeled.
    """
    try:
        return _run(args, python_path)
    finally:
        ray.shutdown()


def _run(args: argparse.Namespace, python_path: str | None) -> int:
    _with_machine_defaults(args)
    teacher = _teacher(args)
    calibration = calibration_of(teacher, args.weights)
    config = _config(args, calibration)
    root = absolute(args.root)
    opener = functools.partial(
        open_source,
        args.source,
        root,
        past_sweeps=config.input_spec(teacher.preset.inputs).past_sweeps,
        future_sweeps=HELD_OUT_SWEEPS,
        labelled=parse_labelled(args.labelled) if args.labelled else None,
        version=args.version,
    )
    source = _open(args, opener, root)
    domain = domain_of(teacher, args.weights)
    reasons = recorded_reasons(domain, args.source, source.name)
    if args.max_error is not None:
        config = _with_bound(args, teacher, calibration, config, reasons)
    elongation_source(source, teacher.preset.inputs.point_features)
    timed = TimedSource(source, args.stall_timeout, root=args.root)
    scene_ids = scenes_of(timed, args.split, root=args.root)
    header = store_header(
        teacher,
        calibration,
        config,
        source=args.source,
        licence=source.licence,
        device="cuda" if args.gpus_per_worker > 0 else "cpu",
    )
    learned = {} if domain is None else {DOMAIN_KEY: domain.to_json()}
    log = provenance_of(args) | {LOG_KEY: source.name}
    header = replace(header, provenance=header.provenance | log | learned)
    store_path = _store_path(args)
    if args.dry_run:
        present = _present(store_path, header)
        missing = [scene_id for scene_id in scene_ids if scene_id not in present]
        cost = estimate(
            missing,
            source,
            teacher,
            calibration,
            config,
            header,
            workers=args.workers,
            readers=args.readers,
        )
        print(cost.describe())
        _warn_of_unverified(reasons)
        print_next("label", *args.job_words)
        return 0
    LabelStore.open_or_create(store_path, header)
    _warn_of_unverified(reasons)
    job = Job(
        open_source=opener,
        root=root,
        weights=args.weights.resolve(),
        store=store_path,
        run_id=header.run_id,
        calibration=calibration,
        config=config,
        gpus_per_worker=args.gpus_per_worker,
        readers=args.readers,
        retries=args.retries,
        stall_s=args.stall_timeout,
    )
    connect(args.address, python_path=python_path)
    if args.events is None and isinstance(store_path, Path):
        args.events = store_path.with_name(f"{store_path.name}.events.jsonl")
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
    verdict = validity_of(LabelStore.open(store_path))
    text = verdict.to_text(bound=config.risk_bound is not None)
    print(printable(text, lines=True), file=sys.stdout if verdict.verified else sys.stderr)
    print_next("inspect", args.store)
    return 1 if summary.failures or verdict.contradicted else 0


def _teacher(args: argparse.Namespace) -> LoadedModel:
    """The network of ``--weights``. Raises ``SetupError`` for a student that nobody asked for."""
    teacher = load_checkpoint(args.weights, expect_preset=args.preset)
    if args.preset is None and not teacher.preset.inputs.lidar:
        name = teacher.preset.name
        raise SetupError(
            f"{args.weights}: weights of {name}, a student without LiDAR; if it shall label all "
            f"the same, add --preset {name}"
        )
    return teacher


def _config(args: argparse.Namespace, calibration: Calibration) -> LabelingConfig:
    """How labels are made. Raises ``SetupError``: an option is out of range."""
    try:
        config = LabelingConfig(
            min_confidence=0.5 if args.min_confidence is None else args.min_confidence,
            past_sweeps=args.past_sweeps,
            free_passes=args.free_passes,
            store_evidence=args.evidence,
            instances=args.instances,
            fast=args.fast,
            flips=args.flips,
            batch=args.batch,
        )
    except ValueError as error:
        raise SetupError(str(error)) from error
    if calibration.refiner is not None and not args.no_refine:
        config = replace(config, refinement=calibration.refiner.config)
    elif calibration.refiner is not None:
        print("warning: --no-refine: confidence was calibrated on refined labels", file=sys.stderr)
    return config


def _warn_of_unverified(reasons: Sequence[str]) -> None:
    if reasons:
        print(printable(f"warning: {UNVERIFIED}: {reasons[0]}{ADAPT}"), file=sys.stderr)


def _with_bound(
    args: argparse.Namespace,
    teacher: LoadedModel,
    calibration: Calibration,
    config: LabelingConfig,
    reasons: Sequence[str],
) -> LabelingConfig:
    """With the error bound of ``--max-error``, which is printed.

    Args:
        reasons: why confidence is not verified on the log.

    Raises:
        SetupError: confidence is not verified and ``--accept-unverified`` not given, or the bound
            cannot be had.
    """
    if reasons and not args.accept_unverified:
        raise SetupError(
            f"--max-error: {UNVERIFIED}, so no bound on errors holds: {reasons[0]}; adapt it with "
            "a few labeled or reviewed frames (scripts/calibrate.py --adapt), or add "
            "--accept-unverified to trust labels by the same thresholds without any bound"
        )
    bound = risk_bound_of(
        teacher,
        calibration,
        config,
        weights=args.weights,
        max_error=_shares(args.max_error, teacher.preset.taxonomy.class_groups()),
        confidence=args.risk_confidence or 0.9,
        test=args.risk_test or "t",
    )
    if reasons:
        print(
            "warning: --accept-unverified: the thresholds of --max-error are used, and no bound "
            "on errors holds",
            file=sys.stderr,
        )
        return replace(config, thresholds=bound.thresholds)
    print(bound.to_text(teacher.preset.taxonomy.names))
    return replace(config, risk_bound=bound)


def _shares(said: Mapping[str, float], groups: Iterable[str]) -> dict[str, float]:
    """Of every group of classes. Raises ``SetupError`` for one that is unknown or has none."""
    names = list(groups)
    if unknown := sorted(said.keys() - {*names, EVERY_GROUP}):
        raise SetupError(f"--max-error: no group {unknown[0]!r}; there are {', '.join(names)}")
    if EVERY_GROUP not in said and (lacking := [name for name in names if name not in said]):
        raise SetupError(f"--max-error: no share for {', '.join(lacking)}; name one for all first")
    return {name: said.get(name, said.get(EVERY_GROUP, 0.0)) for name in names}


def _open(args: argparse.Namespace, opener: Callable[[], SceneSource], root: Path) -> SceneSource:
    """The log, within the stall timeout. Raises ``SetupError``."""
    if args.source != "city":
        return open_within(args.stall_timeout, opener, root=args.root)
    if args.dry_run and not (root / MARKER).is_file():
        raise SetupError(
            f"{root}: the simulated city is not there yet; labeling generates it, or "
            f"python scripts/make_city.py --root {root}; --dry-run writes nothing"
        )
    return opener()  # generated on first use, which takes longer than the timeout


def _store_path(args: argparse.Namespace) -> StorePath:
    """Of ``--store``, absolute; warns of a folder that goes with a submitted job."""
    store: StorePath = args.store
    if not isinstance(store, Path):
        return store
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ and not store.is_absolute():
        print(
            f"warning: --store {store} lies in the submitted job's temporary copy of the "
            "working folder; name an absolute path to keep it",
            file=sys.stderr,
        )
    return store.resolve()


def _present(path: StorePath, header: StoreHeader) -> tuple[str, ...]:
    """Scenes that a store of this job has; none if there is no store yet."""
    try:
        store = LabelStore.open(path)
    except SetupError:
        return ()
    return store.scene_ids() if store.header.run_id == header.run_id else ()
