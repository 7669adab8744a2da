"""Choose what to label next from a store of pseudo-labels."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from autolabel.selection.active_learning import (
    Candidate,
    SelectedCandidate,
    candidates,
    score,
    select_candidates,
)
from autolabel.selection.scores import LabelCounts, count_scene
from autolabel.selection.voxels import select_voxels
from datasets.benchmarks.label_files import write_npz
from datasets.cli.logs import log_words_of
from datasets.cli.next_step import print_next
from datasets.errors import SceneError, SetupError
from datasets.files.json_files import write_json
from datasets.files.printable import printable
from datasets.files.replacing import write_text
from datasets.labels.audit_record import read_audit
from datasets.labels.store import LabelStore
from datasets.splits import read_names

SCENES_A_WORKER = 16
"""Fewer are read before another process has started."""


def run(args: argparse.Namespace) -> int:
    """Run it; gives the exit code.

    Raises:
        SetupError: an option is out of range, or a store or file cannot be used.
    """
    budget, by_frame = args.budget or args.frames, args.frames is not None
    if budget is None or budget < 1 or args.gap < 1 or args.seed < 0:
        raise SetupError("--budget, --frames and --gap must be positive, --seed not negative")
    if args.strategy == "audit" and args.audit is None:
        raise SetupError("--strategy audit needs --audit FILE")
    share, excluded = parse_share(args.voxels), parse_scenes(args.exclude)
    store = LabelStore.open(args.store)
    audit = None
    if args.audit is not None:  # what it says of scenes that are not chosen anyway does not matter
        scored = read_audit(args.audit, any_tool=True).scenes
        audit = dict.fromkeys(excluded, 0.0) | {scene.scene_id: scene.score for scene in scored}
    counted, bad = read(store, open_second(args.second, store), audit, excluded, args.workers)
    if not set(counted) - set(excluded):
        raise SetupError(f"label store {store.place}: has no scene to choose")
    those = candidates(counted, by_frame=by_frame, labelled=excluded)
    scores = score(those, audit)
    chosen = select_candidates(
        those, scores, budget=budget, strategy=args.strategy, seed=args.seed, gap=args.gap
    )
    print("\n".join(table(those, chosen)))
    if len(chosen) < budget:
        unit = "frames that far apart" if by_frame else "scenes"
        print(f"note: there are no more {unit}: {len(chosen)} of {budget} chosen")
    picked = [those[choice.index] for choice in chosen]
    bad |= write(args, store, picked, excluded, share)
    if args.json is not None:
        told = as_json(args, store, those, chosen, bad)
        write_json(args.json, told)
    for scene_id, why in bad.items():
        print(printable(f"left out: {scene_id}: {why}"), file=sys.stderr)
    if by_frame:
        print_next("inspect", args.store, "--scene", picked[0].scene_id, "--frame", picked[0].frame)
    else:
        lists = ["--labeled", args.out / "labelled.txt"]
        print_next("train-teacher", *log_words_of(store.header), *lists)
    return 1 if bad else 0


def parse_share(text: str) -> float | None:
    """``1%`` or ``0.01`` as 0.01; None for nothing.

    Raises:
        SetupError: neither, or not within 0..1.
    """
    if not text:
        return None
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise SetupError(f"--voxels {text}: a share such as 1% or 0.01")
    return share


def parse_scenes(text: str) -> tuple[str, ...]:
    """The words of a file, or names separated by commas.

    Raises:
        SetupError: the file cannot be read.
    """
    path = Path(text)
    if text and path.is_file():
        try:
            return tuple(read_names(path))
        except (OSError, ValueError) as error:
            raise SetupError(f"--exclude {text}: cannot be read: {error}") from error
    if "/" in text or path.suffix == ".txt":
        raise SetupError(f"--exclude {text}: there is no such file")
    return tuple(name for name in text.split(",") if name)


def open_second(where: Any, store: LabelStore) -> LabelStore | None:
    """The other teacher's store.

    Raises:
        SetupError: it cannot be opened, or has other voxels or classes.
    """
    if where is None:
        return None
    header = store.header
    return LabelStore.open(
        where,
        expect_grid=header.grid,
        expect_taxonomy=header.taxonomy,
        expect_frame=header.frame,
    )


def read(
    store: LabelStore,
    second: LabelStore | None,
    audit: dict[str, float] | None,
    excluded: Sequence[str],
    workers: int,
) -> tuple[dict[str, list[tuple[str, LabelCounts]]], dict[str, str]]:
    """Tokens and counts of every scene, and the scenes that cannot be judged, with the reason."""
    counted: dict[str, list[tuple[str, LabelCounts]]] = {}
    bad: dict[str, str] = {}
    scenes = store.scene_ids()
    if audit is not None:
        bad = {scene: "the audit has no score of it" for scene in scenes if scene not in audit}
        scenes = tuple(scene for scene in scenes if scene in audit)
    work = partial(read_scene, store, second, excluded)
    workers = min(workers, len(scenes) // SCENES_A_WORKER)
    with ExitStack() as stack:
        results: Iterator[list[tuple[str, LabelCounts]] | str] = map(work, scenes)
        if workers > 1:
            pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
            results = stack.enter_context(pool).map(work, scenes)
        bar = tqdm(zip(scenes, results, strict=True), "read", len(scenes), unit="scene")
        for scene_id, result in bar:
            if isinstance(result, str):
                bad[scene_id] = result
            else:
                counted[scene_id] = result
    return counted, bad


def read_scene(
    store: LabelStore, second: LabelStore | None, excluded: Sequence[str], scene_id: str
) -> list[tuple[str, LabelCounts]] | str:
    """Tokens and counts of a scene, or why it cannot be judged."""
    compared = None if scene_id in excluded else second
    if compared is not None and scene_id not in compared:
        return "the second store has no such scene"
    try:
        scene = store.scene(scene_id)
        other = None if compared is None else compared.scene(scene_id)
        counts = count_scene(scene, store.header, other)
    except (SceneError, KeyError) as error:
        return str(error)
    return list(zip(scene.frame_tokens, counts, strict=True))


def table(those: Sequence[Candidate], chosen: Sequence[SelectedCandidate]) -> list[str]:
    """Name and scores of the chosen, each score with its rank among all."""
    n = sum(not one.labelled for one in those)
    names = [those[choice.index] for choice in chosen]
    width = max(len(f"{one.scene_id} {one.token}") for one in names)
    lines: list[str] = []
    for choice, one in zip(chosen, names, strict=True):
        if not lines:
            heads = "".join(f"{name + ' (rank)':>22s}" for name in choice.scores)
            lines.append(f"{'of ' + str(n):{width}s} {'frames':>6s}{heads}{'distance':>10s}")
        cells = "".join(
            f"{value:14.4f} {'(' + str(choice.ranks[name]) + ')':>7s}"
            for name, value in choice.scores.items()
        )
        away = f"{choice.distance:10.2f}" if math.isfinite(choice.distance) else f"{'-':>10s}"
        name = f"{one.scene_id} {one.token}"
        lines.append(f"{name:{width}s} {one.counts.frames:6d}{cells}{away}")
    return lines


def write(
    args: argparse.Namespace,
    store: LabelStore,
    picked: Sequence[Candidate],
    excluded: Sequence[str],
    share: float | None,
) -> dict[str, str]:
    """The lists and, with a share, the masks; gives the scenes that cannot be read any more.

    Those of an earlier choice do not stay, once all of this one is written.
    """
    earlier = {args.out / name for name in ("labelled.txt", "frames.txt")}
    earlier.update((args.out / "voxels").glob("*/*.npz"))
    scenes = list(dict.fromkeys(one.scene_id for one in picked))
    frames = [f"{one.scene_id} {one.token}" for one in picked if one.frame is not None]
    more = {"frames.txt": frames} if frames else {"labelled.txt": [*excluded, *scenes]}
    for name, lines in ({"chosen.txt": scenes} | more).items():
        write_text(args.out / name, "".join(f"{line}\n" for line in lines))
        print(f"{args.out / name}: {len(lines)} lines")
    masks, bad = (set(), {}) if share is None else write_masks(args, store, picked, share)
    for path in earlier - masks - {args.out / name for name in more}:
        path.unlink(missing_ok=True)
    for folder in (args.out / "voxels").glob("*/"):
        if not any(folder.iterdir()):
            folder.rmdir()
    return bad


def write_masks(
    args: argparse.Namespace, store: LabelStore, picked: Sequence[Candidate], share: float
) -> tuple[set[Path], dict[str, str]]:
    """The files, and the scenes that cannot be read any more."""
    written: set[Path] = set()
    bad: dict[str, str] = {}
    count = 0
    levels = store.header.levels
    for one in tqdm(picked, desc="voxels", unit="scene" if args.frames is None else "frame"):
        try:
            scene = store.scene(one.scene_id)
            for k in range(len(scene)) if one.frame is None else (one.frame,):
                labels = scene.frame(k)
                mask = select_voxels(labels, levels, share, seed=args.seed)
                path = args.out / "voxels" / one.scene_id / f"{k:04d}.npz"
                write_npz(path, {"mask": mask, "token": np.str_(labels.token)})
                count += int(mask.sum())
                written.add(path)
        except (SceneError, KeyError) as error:
            bad[one.scene_id] = str(error)
    print(
        f"{args.out / 'voxels'}: {count:,} voxels of {len(written)} frames, "
        f"{100 * count / max(1, len(written) * store.header.grid.n_voxels):.3f} % of theirs"
    )
    return written, bad


def as_json(
    args: argparse.Namespace,
    store: LabelStore,
    those: Sequence[Candidate],
    chosen: Sequence[SelectedCandidate],
    bad: dict[str, str],
) -> dict[str, Any]:
    rows = []
    for choice in chosen:
        one = those[choice.index]
        row: dict[str, Any] = {"scene_id": one.scene_id}
        if one.frame is not None:
            row |= {"frame": one.frame, "token": one.token}
        distance = choice.distance if math.isfinite(choice.distance) else None
        rows.append(row | {"scores": choice.scores, "ranks": choice.ranks, "distance": distance})
    return {
        "store": str(store.place),
        "run_id": store.header.run_id,
        "strategy": args.strategy,
        "seed": args.seed,
        "candidates": sum(not one.labelled for one in those),
        "labelled in the store": sorted({one.scene_id for one in those if one.labelled}),
        "chosen": rows,
        "left out": bad,
    }
