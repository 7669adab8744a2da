"""Label a split of a log with a teacher into a label store.

    python autolabel/run.py --split unlabeled
    python autolabel/run.py --source nuscenes --root DIR --weights FILE --split all --store OUT
    ray submit CLUSTER.yaml autolabel/run.py --split unlabeled
    ray job submit --working-dir . -- python autolabel/run.py --split unlabeled --store OUT

Started again with the same options it continues and relabels nothing. Exit codes: 0 all labeled,
1 some scene is quarantined (the store says why) or held-out LiDAR contradicts the confidence, 2 the
job could not start, 130 stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import models
from datasets.cli.options import DEFAULT_CITY, CommandParser, add_labeled, add_log
from datasets.files.store_path import parse_store_path

DEFAULT_WEIGHTS = Path(models.__file__).parent / "weights" / "city_small_teacher.safetensors"


EVERY_GROUP = "every"
"""Of the shares of ``--max-error``: that of the groups which have none of their own."""


def shares(text: str) -> dict[str, float]:
    """``0.02`` or ``0.02,vehicles=0.1``: shares by group. Raises ``ArgumentTypeError``."""
    out: dict[str, float] = {}
    for part in text.split(","):
        group, _, share = part.rpartition("=")
        try:
            value = float(share)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part!r} is not a share, such as 0.02") from None
        if (group := group.strip() or EVERY_GROUP) in out:
            raise argparse.ArgumentTypeError(f"{text!r} names a group twice")
        out[group] = value
    return out


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for an unknown or bad option."""
    parser = CommandParser(__doc__)
    add = parser.add_argument
    add("--split", required=True, help="split of the log, or scene ids separated by commas")
    add_log(parser, root=None)
    add_labeled(parser)
    add("--weights", type=Path, default=DEFAULT_WEIGHTS, help="teacher (default: city_small's)")
    add("--preset", help="refuse weights of any other preset")
    add(
        "--store",
        type=parse_store_path,
        default=Path("runs/labels.zarr"),
        help="label store to write: a folder, or s3://BUCKET/PREFIX",
    )
    add("--dry-run", action="store_true", help="print scenes, frames, bytes and hours, and end")
    add("--workers", type=int, help="actors (default: as many as there is room for, also later)")
    add(
        "--gpus-per-worker",
        type=float,
        help="GPU share of an actor; 0: on the CPU (default: 1 if this machine has a GPU, else 0)",
    )
    add("--batch", type=int, help="frames in a batch (default: 1 on a CPU, 4 on a GPU)")
    add(
        "--io-threads",
        dest="readers",
        type=int,
        help="threads of an actor that read, and as many that finish labels (default: 1; on a GPU "
        "up to 4, as its share of this machine's cores allows)",
    )
    add("--retries", type=int, default=2, help="further tries of a scene whose worker failed")
    add(
        "--stall-timeout",
        type=float,
        default=1800.0,
        metavar="SECONDS",
        help="kill a worker that finishes no frame for so long, and give up on a log that does "
        "not answer",
    )
    add(
        "--events",
        type=Path,
        metavar="FILE",
        help="append what happens as JSON lines (default, beside a local store: "
        "STORE.events.jsonl)",
    )
    add("--address", help="Ray cluster to join: HOST:PORT, auto, or local")
    add("--min-confidence", type=float, help="trust labels from this P(right) on (default: 0.5)")
    add(
        "--max-error",
        type=shares,
        metavar="SHARE",
        help="pick the lowest confidence thresholds at which at most this share of the trusted "
        "voxels of each group of classes is wrong (0.02 is 2 %%); a group may have its own: "
        "0.02,vehicles=0.1. Groups: vehicles, people, ground, structures, vegetation, free",
    )
    add(
        "--accept-unverified",
        action="store_true",
        help="with --max-error on a log that confidence was not calibrated on: use the same "
        "thresholds, without any bound on errors",
    )
    add(
        "--risk-confidence",
        type=float,
        help="probability that the bound of --max-error holds (default: 0.9)",
    )
    add(
        "--risk-test",
        choices=("t", "exact"),
        help="t (default): Student's over calibration scenes; exact: whatever their distribution, "
        "which takes far more of them",
    )
    add(
        "--min-free-rays",
        dest="free_passes",
        type=int,
        help="LiDAR rays that must cross a trusted free voxel (default: as measured with the "
        "calibration)",
    )
    add("--past-sweeps", type=int, help="earlier LiDAR sweeps (default: as the teacher has)")
    add("--fast", action="store_true", help="predict in bfloat16: faster, labels change little")
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
    add(
        "--instances",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="number objects that can move, the same in every frame of a scene (default: on)",
    )
    parser.rename(
        readers="io-threads",
        promise_confidence="risk-confidence",
        promise_test="risk-test",
        free_passes="min-free-rays",
    )
    words = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(words)
    args.job_words = [word for word in words if word != "--dry-run"]
    for name in ("workers", "batch", "readers", "stall_timeout"):
        value = getattr(args, name)
        if value is not None and not value > 0:
            flag = "io-threads" if name == "readers" else name.replace("_", "-")
            parser.error(f"--{flag} must be positive, got {value}")
    if args.retries < 0 or (args.gpus_per_worker or 0) < 0:
        parser.error("--retries and --gpus-per-worker must not be negative")
    if args.max_error is None:
        if args.risk_confidence is not None or args.risk_test is not None:
            parser.error("--risk-... are of the error bound that --max-error asks for")
    elif args.min_confidence is not None or args.free_passes is not None:
        parser.error("--max-error decides what is trusted: leave out what else does")
    elif not all(0 < e < 1 for e in (*args.max_error.values(), args.risk_confidence or 0.9)):
        parser.error("--max-error and --risk-confidence must lie between 0 and 1")
    if args.accept_unverified and args.max_error is None:
        parser.error("--accept-unverified goes with --max-error")
    if args.root is None:
        if args.source != "city":
            parser.error(f"--source {args.source} needs --root")
        args.root = DEFAULT_CITY
    return args
