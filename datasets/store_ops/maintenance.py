"""What is done to whole label stores: describe, verify, compare, merge, tidy, export.

Legend: X Y Z voxels, K classes, R rings of distance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from datasets.errors import SceneError, UnreadableError
from datasets.files.bounded_files import parsing
from datasets.files.store_path import StorePath
from datasets.labels.store import QUARANTINE, SCENES, LabelStore
from datasets.reviews.overlay import Reviews
from datasets.reviews.summary import ReviewCounts, count_reviews
from datasets.storage.atomic_files import PARTIAL
from datasets.store_ops.processes import map_in_processes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo:
    """Attributes:
    bytes_: of all files of committed scenes.
    trusted_by_class: K counts.
    inputs_sha256: of the fingerprints of the scenes that were labeled, in order of their ids.
    reviews: what people said of them.
    """

    scenes: int
    frames: int
    voxels: int
    trusted: int
    trusted_by_class: tuple[int, ...]
    bytes_: int
    quarantined: dict[str, str]
    inputs_sha256: str
    reviews: ReviewCounts


def info(store: LabelStore) -> StoreInfo:
    """Counts from the scenes' attributes and the reviews; no voxel is read. Raises
    ``UnreadableError`` where they are damaged."""
    frames = voxels = trusted = size = 0
    by_class = np.zeros(store.header.taxonomy.n_classes, np.int64)
    inputs = hashlib.sha256()
    for scene_id, attributes in (committed := store.committed()).items():
        try:
            with parsing():
                counts = attributes["counts"]
                frames, voxels = frames + int(counts["frames"]), voxels + int(counts["voxels"])
                trusted += int(counts["trusted"])
                by_class += np.asarray(counts["trusted_by_class"], np.int64)
                inputs.update(f"{scene_id} {attributes['inputs']}\n".encode())
        except ValueError as error:
            where = f"label store {store.place}: scene {scene_id}"
            raise UnreadableError(f"{where}: its counts are damaged: {error}") from error
    for key, n in store.place.files(SCENES):
        size += n if key.split("/")[0] in committed else 0
    return StoreInfo(
        scenes=len(committed),
        frames=frames,
        voxels=voxels,
        trusted=trusted,
        trusted_by_class=tuple(int(n) for n in by_class),
        bytes_=size,
        quarantined={s: note["reason"] for s, note in store.quarantined().items()},
        inputs_sha256=inputs.hexdigest(),
        reviews=count_reviews(Reviews(store)),
    )


def verify(
    where: StorePath, *, workers: int = 1, on_scene: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Read every committed scene and compare its checksums: scene id -> what is wrong.

    Raises:
        SetupError: the store cannot be opened.
    """
    store = LabelStore.open(where)
    committed, unreadable = store.looked_at()
    scenes = sorted(committed.keys() | unreadable.keys())
    reasons = map_in_processes(partial(_verify_scene, where), scenes, workers, on_scene)
    return {scene: reason for scene, reason in zip(scenes, reasons, strict=True) if reason}


def _verify_scene(where: StorePath, scene_id: str) -> str:
    try:
        LabelStore.open(where).scene(scene_id).verify()
    except (SceneError, UnreadableError, KeyError) as error:
        return str(error)
    return ""


def leftovers(store: LabelStore) -> list[str]:
    """Keys that no reader looks at: scenes without a commit marker, folders of killed writers,
    and notes on scenes that were quarantined and have labels since.

    Raises:
        UnreadableError: a scene cannot be read, so nobody knows what is left over.
    """
    place = store.place
    committed = set(store.scene_ids())
    keys = [f"{SCENES}/{name}" for name in place.list_dirs(SCENES) if name not in committed]
    keys += [f"{QUARANTINE}/{name}" for name in place.list_dirs(QUARANTINE) if name in committed]
    return keys + ([PARTIAL] if PARTIAL in (place.list_root() or []) else [])


def prune(store: LabelStore) -> list[str]:
    """Remove the leftovers; gives their keys. No job must be at work on the store. Raises as
    ``leftovers``, before anything is removed."""
    keys = leftovers(store)
    for key in keys:
        store.place.remove(key)
    return keys
