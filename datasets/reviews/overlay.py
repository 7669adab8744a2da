"""The review overlay of a label store: verdicts on its labels, and edits of them.

Below ``<store>/reviews/``, one small document per entry (``review_entries``), created once and
never changed: writers need no lock, and lose nothing of each other's. The teacher's arrays are not
touched; ``Reviews.reviewed`` applies the edits to a frame that was read.

An entry holds for the labels that were reviewed. It carries their digest; on a scene that was
labeled anew since, it is *stale*, listed and not applied.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from datasets.errors import SetupError, UnreadableError
from datasets.files.json_files import canonical_text, json_text
from datasets.labels.store import FrameLabels, LabelStore
from datasets.reviews.edits import apply_edits
from datasets.reviews.entries import (
    EditEntry,
    Entry,
    NoteEntry,
    Undo,
    Verdict,
    VerdictEntry,
    Written,
    from_document,
    to_document,
)
from datasets.reviews.verdicts import FrameVerdict, frame_verdicts
from datasets.storage.backend import GROUP, write_group
from datasets.taxonomy import IGNORE_ID

__all__ = [
    "EditEntry",
    "Entry",
    "FrameVerdict",
    "NoteEntry",
    "Reviews",
    "Undo",
    "Verdict",
    "VerdictEntry",
    "Written",
    "labels_digest",
]

REVIEWS = "reviews"
DAY_US = 24 * 3600 * 10**6


@dataclass(frozen=True, slots=True)
class _Scene:
    """What is known of a scene: ``labels`` and ``tokens`` as stored, empty if it is not there."""

    labels: str = ""
    tokens: frozenset[str] = frozenset()
    written: tuple[Entry, ...] = ()  # all but undos, oldest first
    counting: tuple[Entry, ...] = ()
    stale: tuple[Entry, ...] = ()
    orphaned: tuple[str, ...] = ()  # entries on frames that the scene does not have
    verdicts: dict[str, FrameVerdict] | None = None
    edits: dict[str, tuple[EditEntry, ...]] | None = None


class Reviews:
    """The overlay of one store. Safe to use from several threads; picklable.

    Reads what is there; later ``refresh`` reads what others wrote.

    Raises:
        SetupError: the overlay cannot be listed.
    """

    def __init__(self, store: LabelStore) -> None:
        self.store = store
        self._lock = threading.RLock()
        self._names: set[str] = set()
        self._damaged: dict[str, str] = {}
        self._entries: dict[str, Entry] = {}
        self._undone: set[tuple[str, str]] = set()
        self._scenes: dict[str, _Scene] = {}
        self._latest_us = 0
        self.refresh()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "_lock": threading.RLock()}

    def refresh(self) -> bool:
        """Read what others wrote since; whether there is anything new. Only names are listed, and
        new documents read.

        Raises:
            SetupError: the overlay cannot be listed.
        """
        try:
            listed = set(self.store.place.list_files(REVIEWS)) - {GROUP}
        except OSError as error:
            raise SetupError(f"{self._where}: cannot be read: {error}") from error
        with self._lock:
            for name in self._damaged.keys() - listed:
                del self._damaged[name]  # put away meanwhile
            names = sorted(listed - self._names)
            read = self.store.place.map(self._read, names)
            new = [entry for entry in read if isinstance(entry, Entry)]
            self._take(new)
            return bool(new)

    def add(self, what: Written, *, reviewer: str) -> Entry:
        """Write an entry; it is on the disk when this returns.

        It comes after all that this object knows of, whatever the clocks say.

        Raises:
            ValueError: the scene has no such frame, the grid no such voxel or the taxonomy no such
                class; an undo of an entry that is not there or another reviewer's; a text that is
                too long.
            SetupError: it cannot be written.
        """
        with self._lock:
            labels = self._check(what, reviewer)
            for _ in range(8):
                now_us = max(time.time_ns() // 1000, self._latest_us + 1)
                entry = Entry(
                    id=f"{now_us:016d}-{secrets.token_hex(8)}",
                    time_us=now_us,
                    reviewer=reviewer,
                    labels=labels,
                    what=what,
                )
                if self._write(entry):
                    break
            self._names.add(f"{entry.id}.json")
            self._take([entry])
        return entry

    def undo(self, reviewer: str) -> Entry | None:
        """Take back this reviewer's last entry that still counts, and give it; None if there is
        none.

        Raises:
            SetupError: it cannot be written.
        """
        with self._lock:
            own = [entry for entry in self.entries() if entry.reviewer == reviewer]
            if not own:
                return None
            self.add(Undo(entry=own[-1].id), reviewer=reviewer)
            return own[-1]

    def entries(self, scene_id: str | None = None) -> tuple[Entry, ...]:
        """Those that count, oldest first: not undone, not stale, and no undos."""
        if scene_id is not None:
            return self._scenes.get(scene_id, _Scene()).counting
        return _in_order(e for scene in list(self._scenes.values()) for e in scene.counting)

    def stale(self) -> tuple[Entry, ...]:
        """Those on labels that the store no longer has, oldest first."""
        return _in_order(e for scene in list(self._scenes.values()) for e in scene.stale)

    def damaged(self) -> tuple[str, ...]:
        """Names of the files that are no entry of this store."""
        with self._lock:
            orphaned = [name for scene in self._scenes.values() for name in scene.orphaned]
            return tuple(sorted([*self._damaged, *orphaned]))

    def why_damaged(self, name: str) -> str:
        """What is wrong with a file that ``damaged`` names."""
        return self._damaged.get(name, "its scene has no such frame")

    def require_whole(self) -> None:
        """For those who act on the reviews: an entry that cannot be read may be a rejection.

        Raises:
            UnreadableError: there is one. (A file of another kind of name never was one.)
        """
        with self._lock:
            torn = sorted(name for name in self._damaged if name.endswith(".json"))
        if torn:
            raise UnreadableError(
                f"{self._where}: {torn[0]}: {self.why_damaged(torn[0])}; what it says is not known "
                f"({len(torn)} of them): put it right, move it away, or leave out all reviews"
            )

    def scene_ids(self) -> tuple[str, ...]:
        """Scenes with entries that count, sorted."""
        return tuple(sorted(name for name, scene in list(self._scenes.items()) if scene.counting))

    def verdicts(self, scene_id: str) -> dict[str, FrameVerdict]:
        """Of the scene's judged frames, by their tokens."""
        return dict(self._scenes.get(scene_id, _Scene()).verdicts or {})

    def rejected(self, scene_id: str) -> frozenset[str]:
        """Tokens of the frames that students and exports leave out."""
        verdicts = self.verdicts(scene_id).items()
        return frozenset(token for token, verdict in verdicts if verdict.verdict is Verdict.REJECT)

    def edits(self, scene_id: str) -> dict[str, tuple[EditEntry, ...]]:
        """Of the scene's edited frames, oldest first, by their tokens."""
        return dict(self._scenes.get(scene_id, _Scene()).edits or {})

    def reviewed(self, labels: FrameLabels, scene_id: str) -> FrameLabels:
        """The labels with the edits of their frame applied in order (``apply_edits``); the same
        object if there is none."""
        edits = (self._scenes.get(scene_id, _Scene()).edits or {}).get(labels.token)
        if not edits:
            return labels
        return apply_edits(labels, edits, self.store.header)

    def fingerprint(self) -> str:
        """Hash of what changes for those who learn from the labels: frames rejected and voxels
        painted; empty if nothing does."""
        changes = []
        for scene_id in self.scene_ids():
            edits = [e.id for e in self.entries(scene_id) if isinstance(e.what, EditEntry)]
            left_out = sorted(self.rejected(scene_id))
            if left_out or edits:
                changes.append([scene_id, left_out, edits])
        return hashlib.sha256(json_text(changes).encode()).hexdigest() if changes else ""

    @property
    def _where(self) -> str:
        return f"label store {self.store.place}: reviews"

    def _read(self, name: str) -> Entry | None:
        """A document; None, and noted, where it is none. What could not be read is tried again."""
        grid, taxonomy = self.store.header.grid, self.store.header.taxonomy
        try:
            data = self.store.place.read(f"{REVIEWS}/{name}")
        except OSError as error:  # also one that is listed and is not there
            self._damaged[name] = f"cannot be read: {error}"
            return None
        self._names.add(name)
        self._damaged.pop(name, None)
        try:
            if not name.endswith(".json"):
                raise ValueError("not the name of an entry")
            return from_document(
                name.removesuffix(".json"),
                data,
                n_voxels=grid.n_voxels,
                n_classes=taxonomy.n_classes,
            )
        except ValueError as error:
            self._damaged[name] = str(error)
            return None

    def _write(self, entry: Entry) -> bool:
        """Whether there was none of that id."""
        place, key, data = self.store.place, f"{REVIEWS}/{entry.id}.json", to_document(entry)
        try:
            if not self._names:
                write_group(place, REVIEWS, {})
            # a request that was sent twice finds what it wrote
            return place.create(key, data) or place.read(key) == data
        except OSError as error:
            why = error.strerror or error
            raise SetupError(f"{self._where}: an entry cannot be written: {why}") from error

    def _check(self, what: Written, reviewer: str) -> str:
        """The digest of the labels that an entry is on."""
        if isinstance(what, Undo):
            undone = self._entries.get(what.entry)
            if undone is None or undone.reviewer != reviewer:
                raise ValueError(f"{reviewer} has no entry {what.entry} to undo")
            return undone.labels
        scene = self._known(what.scene_id)
        if not scene.labels:
            raise ValueError(f"the store has no scene {what.scene_id}")
        for token in _tokens(what):
            if token not in scene.tokens:
                raise ValueError(f"scene {what.scene_id} has no frame {token}")
        if isinstance(what, EditEntry):
            n, K = self.store.header.grid.n_voxels, self.store.header.taxonomy.n_classes
            if what.voxels[-1] >= n:
                raise ValueError(f"voxel {what.voxels[-1]} in a grid of {n}")
            if what.class_id >= K and what.class_id != IGNORE_ID:
                raise ValueError(f"class id {what.class_id} is unknown")
        return scene.labels

    def _known(self, scene_id: str, *, again: bool = False) -> _Scene:
        """What is known of a scene, its attributes read if they were not, or ``again``."""
        scene = self._scenes.get(scene_id, _Scene())
        if again or not scene.labels:
            attributes = self.store.attributes(scene_id) or {}
            scene = replace(
                scene,
                labels=labels_digest(attributes) if attributes else "",
                tokens=frozenset(attributes.get("frame_tokens", ())),
            )
            self._scenes[scene_id] = scene
        return scene

    def _take(self, new: list[Entry]) -> None:
        """Put entries where they belong."""
        by_scene: dict[str, list[Entry]] = {}
        soon_us = time.time_ns() // 1000 + DAY_US
        for entry in new:
            self._entries[entry.id] = entry
            if entry.time_us < soon_us:  # a clock that is years ahead is not followed
                self._latest_us = max(self._latest_us, entry.time_us)
            if not isinstance(entry.what, Undo):
                by_scene.setdefault(entry.what.scene_id, []).append(entry)
        for entry in new:
            if isinstance(entry.what, Undo):
                self._undone.add((entry.what.entry, entry.reviewer))
                undone = self._entries.get(entry.what.entry)
                if undone is not None and not isinstance(undone.what, Undo):
                    by_scene.setdefault(undone.what.scene_id, [])
        for scene_id, entries in by_scene.items():
            scene = self._known(scene_id)
            if any(entry.labels != scene.labels for entry in entries):
                scene = self._known(scene_id, again=True)
            scene = replace(scene, written=_in_order([*scene.written, *entries]))
            self._scenes[scene_id] = self._counted(scene)

    def _counted(self, scene: _Scene) -> _Scene:
        counting, stale, orphaned = list[Entry](), list[Entry](), list[str]()
        edits = dict[str, tuple[EditEntry, ...]]()
        for entry in scene.written:
            if (entry.id, entry.reviewer) in self._undone:
                continue
            if entry.labels != scene.labels:
                stale.append(entry)
            elif not scene.tokens.issuperset(_tokens(entry.what)):
                orphaned.append(f"{entry.id}.json")
            else:
                counting.append(entry)
                if isinstance(edit := entry.what, EditEntry):
                    edits[edit.token] = (*edits.get(edit.token, ()), edit)
        return replace(
            scene,
            counting=tuple(counting),
            stale=tuple(stale),
            orphaned=tuple(orphaned),
            verdicts=frame_verdicts(counting),
            edits=edits,
        )


def labels_digest(attributes: dict[str, Any]) -> str:
    """Hash of a scene's labels, from its attributes as stored."""
    return hashlib.sha256(canonical_text(attributes["sha256"]).encode()).hexdigest()


def _tokens(what: Written) -> tuple[str, ...]:
    match what:
        case VerdictEntry():
            return what.tokens
        case NoteEntry() | EditEntry():
            return (what.token,)
        case Undo():
            return ()


def _in_order(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda one: one.id))
