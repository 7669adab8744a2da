"""Flip single bits of a label store, one after the other, and see who notices.

A small city is labelled; one of its scenes has a bad file and is set aside, and people reviewed the
others. Every flip is made in a copy of this store. Half of the flips fall on files, each alike, and
half on bytes. Then ``store.py verify`` runs, every reader reads all that there is, and ``prune``
runs. Good is: ``verify`` names the file's scene, note or review, or all that is read is unchanged;
nobody reads anything else without saying so; errors are the package's own; and when the bit is
flipped back after ``prune``, the store is what it was.

To the flips come edits that a careless person makes with a text editor, and documents that the
disk refuses to read.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from chaos_modes.outcome import Options, Outcome, broke, facts_of, small_city
from tqdm import tqdm

from autolabel.commands import store as store_command
from datasets.cli.exit_codes import exit_code, print_bad_scene
from datasets.errors import AutolabelError
from datasets.files.json_files import canonical_text, json_text
from datasets.labels.label_set import StoredLabels
from datasets.labels.store import LabelStore
from datasets.loading.targets import PseudoLabels
from datasets.reviews.entries import EditEntry, NoteEntry, Verdict, VerdictEntry, to_document
from datasets.reviews.overlay import Reviews
from datasets.sources.opening import open_source
from datasets.storage.backend import GROUP, LocalBackend, StorageBackend
from datasets.store_ops.maintenance import info, prune

ROOT = Path(__file__).resolve().parents[3]
SCENES, FRAMES = 3, 2
Said = dict[str, str]
"""What a reader gives, or ``error: ...``, by the reader and what it read."""


@dataclass(slots=True)
class Counts:
    """Attributes:
    flips: by the kind of file.
    named: by ``verify``, which says where.
    harmless: all that is read is what it was.
    refused: of the named ones, those that some reader refused.
    unnoticed: read otherwise, or not at all, and ``verify`` does not say so.
    let_in: a reader gave other labels without an error, whatever ``verify`` said.
    wrong_errors: exceptions that are not ours.
    lost: a scene, a note or a review was gone after ``prune``.
    cases: the first of those that broke a promise.
    """

    flips: Counter[str] = field(default_factory=Counter)
    edits: int = 0
    unreadable: int = 0
    named: int = 0
    harmless: int = 0
    refused: int = 0
    unnoticed: int = 0
    let_in: int = 0
    wrong_errors: int = 0
    lost: int = 0
    cases: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        return self.unnoticed + self.let_in + self.wrong_errors + self.lost


def run(options: Options, folder: Path) -> Outcome:
    store = labelled(folder)
    judge = Judge(store, folder / "city", folder / "copy.zarr")
    rng = random.Random(options.seed)
    for _ in tqdm(range(options.number), desc="flips"):
        judge.flip(*drawn(store, rng))
    for edit in EDITS:
        judge.edit(edit)
    for key in sorted(p.relative_to(store).as_posix() for p in store.rglob(GROUP)):
        judge.unreadable(key)
    counts = judge.counts
    return Outcome(text=describe(counts), facts=facts_of(counts), bad=counts.bad)


def labelled(folder: Path) -> Path:
    """A store with all kinds of documents: scenes, a scene set aside, reviews."""
    city = small_city(folder / "city", scenes=SCENES + 1, frames=FRAMES)
    source = open_source("city", city, past_sweeps=0)
    bad = source.scene_ids("unlabeled")[-1]
    source.scene(bad).frames[0].sweeps[0].path.write_bytes(b"torn")
    store = folder / "labels.zarr"
    done = subprocess.run(
        [
            *(sys.executable, "autolabel/run.py", "--split", "unlabeled", "--root", str(city)),
            *("--store", str(store), "--workers", "1", "--address", "local", "--evidence"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    opened = LabelStore.open(store) if done.returncode == 1 else None
    if opened is None or len(opened.scene_ids()) != SCENES or len(opened.quarantined()) != 1:
        raise RuntimeError(f"the store was not made as it should be: {done.stderr}")
    review(opened)
    return store


def review(store: LabelStore) -> None:
    """An entry of every kind."""
    reviews = Reviews(store)
    first, second, *_ = store.scene_ids()
    tokens = store.scene(first).frame_tokens
    voxels = np.arange(4000, 4400, 3)
    for entry in (
        VerdictEntry(scene_id=first, tokens=tokens[:1], verdict=Verdict.ACCEPT, note="fine"),
        VerdictEntry(
            scene_id=second, tokens=store.scene(second).frame_tokens, verdict=Verdict.REJECT
        ),
        NoteEntry(scene_id=first, token=tokens[0], note="a ghost behind the bus"),
        EditEntry(scene_id=first, token=tokens[0], voxels=voxels, class_id=4),
        EditEntry(scene_id=first, token=tokens[1], voxels=voxels + 9000, class_id=255),
    ):
        reviews.add(entry, reviewer="ann")
    reviews.undo("ann")


def drawn(store: Path, rng: random.Random) -> tuple[str, int]:
    """A file's key and a bit of it: half the time any file, else any byte of all."""
    files = LocalBackend(store).files("")
    if rng.random() < 0.5:
        key, size = rng.choice(files)
    else:
        key, size = rng.choices(files, [size for _, size in files])[0]
    return key, rng.randrange(8 * size)


class Judge:
    """Attacks copies of a store and counts what happens."""

    def __init__(self, store: Path, city: Path, copy: Path) -> None:
        self.whole, self.copy = store, copy
        self.source = open_source("city", city, past_sweeps=0)
        self.frames = {
            scene_id: self.source.scene(scene_id).frames
            for scene_id in LabelStore.open(store).scene_ids()
        }
        self.counts = Counts()
        self._renew()
        self.before, self.tree = self.said(copy), names(copy)
        code, said = verified(copy)
        if code or any(answer.startswith("error") for answer in self.before.values()):
            raise RuntimeError(f"the store is not whole to begin with: {said} {self.before}")

    def flip(self, key: str, bit: int) -> None:
        data = bytearray((self.whole / key).read_bytes())
        data[bit // 8] ^= 1 << bit % 8
        self.counts.flips[kind_of(key)] += 1
        self._attack(key, bytes(data), f"bit {bit} of {key}")

    def edit(self, edit: Edit) -> None:
        key = edit.key.format(scene=next(iter(self.frames)))
        document = json.loads((self.whole / key).read_text())
        edit.change(document)
        self.counts.edits += 1
        self._attack(key, json_text(document, indent=2).encode(), edit.what)

    def unreadable(self, key: str) -> None:
        self.counts.unreadable += 1
        self._judge(
            key, Refusing(LocalBackend(self.copy), key), f"{key} refused", harmless_only=False
        )

    def _attack(self, key: str, data: bytes, attack: str) -> None:
        (self.copy / key).unlink()  # a link to the whole store's file
        (self.copy / key).write_bytes(data)
        self._judge(key, self.copy, attack)
        with contextlib.suppress(OSError):
            (self.copy / key).unlink()
            os.link(self.whole / key, self.copy / key)
        if names(self.copy) != self.tree:
            broke(
                self.counts,
                "lost",
                f"{attack}: prune took {sorted(self.tree - names(self.copy))[:3]}",
            )
            self._renew()

    def _renew(self) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.whole, self.copy, copy_function=os.link)

    def _judge(self, key: str, store: Any, attack: str, *, harmless_only: bool = True) -> None:
        """Count what ``verify``, the readers and ``prune`` say of a store with one fault."""
        wrong: list[str] = []
        said = self.said(store, wrong)
        other = {
            name
            for name in self.before.keys() | said.keys()
            if said.get(name) != self.before.get(name)
        }
        silent = {name for name in other & said.keys() if not said[name].startswith("error")}
        try:
            code, line = verified(store)
        except Exception as error:
            code, line = 2, f"{place_of(key)}"
            wrong.append(f"verify: {error!r}")
        if code and place_of(key) in line:
            self.counts.named += 1
            self.counts.refused += bool(other - silent)
        elif other:
            broke(
                self.counts,
                "unnoticed",
                f"{attack}: {sorted(other)[:3]} differ; verify: {line!r:.200}",
            )
        elif not code:
            self.counts.harmless += 1
        else:
            broke(self.counts, "unnoticed", f"{attack}: verify does not say where: {line!r:.200}")
        if trusted := sorted(name for name in silent if name.split()[0] in LEARNT_FROM):
            broke(self.counts, "let_in", f"{attack}: {trusted[:3]} differ, no error")
        try:
            prune(LabelStore.open(store))
        except AutolabelError:
            pass
        except Exception as error:
            wrong.append(f"prune: {error!r}")
        if wrong:
            broke(self.counts, "wrong_errors", f"{attack}: {wrong[0]:.300}")

    def said(self, place: Any, wrong: list[str] | None = None) -> Said:
        """What all readers give."""
        answers: Said = {}

        def note(reader: str, read: Callable[..., object], *arguments: object) -> Any:
            try:
                value = read(*arguments)
            except AutolabelError as error:
                answers[reader] = f"error: {error}"
            except Exception as error:
                answers[reader] = f"error: {error!r}"
                if wrong is not None:
                    wrong.append(f"{reader}: {error!r}")
            else:
                answers[reader] = value if isinstance(value, str) else ""
                return value
            return None

        store = note("open", LabelStore.open, place)
        if store is None:
            return answers
        note("header", lambda: canonical_text(store.header.to_json()))
        note("ids", lambda: canonical_text(store.scene_ids()))
        note("notes", notes, store)
        note("info", counted, store)
        note("reviews", reviewed, store)
        for scene_id in self.frames:
            note(f"scene {scene_id}", content, store, scene_id)
        if labels := note("student set", PseudoLabels, place):
            for scene_id, frames in self.frames.items():
                note(f"student left out {scene_id}", left_out, labels, scene_id)
                for frame in frames:
                    note(f"student {frame.token}", target, labels, frame)
        if shown := note("viewer", StoredLabels, place, print_bad_scene):
            with contextlib.redirect_stderr(io.StringIO()):
                scene_ids = note("viewer ids", shown.scene_ids) or ()
            for scene_id in scene_ids:
                note(f"viewer {scene_id}", first_frame, shown, scene_id)
        return answers


LEARNT_FROM = ("scene", "student", "ids", "header", "notes", "reviews", "info")
"""Readers that must not give anything else without an error. (The viewer leaves out what it
cannot read, and says so.)"""


def content(store: LabelStore, scene_id: str) -> str:
    """All of a scene."""
    scene = store.scene(scene_id)
    frames = [digest(scene.frame(k)) for k in range(len(scene))]
    said = {key: value for key, value in scene.attributes.items() if key != "digest"}
    return canonical_text([frames, scene.frame_tokens, said])


def counted(store: LabelStore) -> str:
    """What ``info`` says of the scenes; of notes and reviews others tell."""
    return repr(replace(info(store), quarantined={}, reviews=None, bytes_=0))  # type: ignore[arg-type]


def digest(labels: Any) -> str:
    sha = hashlib.sha256(f"{labels.token} {labels.timestamp_us}".encode())
    for name in ("T_global_grid", "semantics", "confidence", "mask", "hits", "passes", "flow"):
        if (array := getattr(labels, name)) is not None:
            sha.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return sha.hexdigest()


def target(labels: PseudoLabels, frame: Any) -> str:
    learnt = labels.target(frame)
    return hashlib.sha256(learnt.semantics.tobytes() + learnt.weight.tobytes()).hexdigest()


def left_out(labels: PseudoLabels, scene_id: str) -> str:
    return canonical_text(sorted(labels.excluded_frames(scene_id)))


def first_frame(labels: StoredLabels, scene_id: str) -> str:
    return digest(labels.scene(scene_id).frame(0))


def reviewed(store: LabelStore) -> str:
    """All entries; those that are damaged are an error of this reader."""
    reviews = Reviews(store)
    if damaged := reviews.damaged():
        raise AutolabelError(f"{damaged[0]}: {reviews.why_damaged(damaged[0])}")
    entries = [to_document(entry).decode() for entry in (*reviews.entries(), *reviews.stale())]
    return canonical_text([entries, reviews.fingerprint()])


def notes(store: LabelStore) -> str:
    """All notes; those that cannot be read are an error of this reader."""
    quarantined = store.quarantined()
    for note in quarantined.values():
        if note["reason"].startswith("the note on it cannot be read"):
            raise AutolabelError(note["reason"])
    return canonical_text(quarantined)


def verified(store: Any) -> tuple[int, str]:
    """Exit code of ``store.py verify`` and all that it says."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        args = argparse.Namespace(store=store, workers=1)
        code = exit_code(lambda: store_command.check(args))
    return code, said.getvalue()


def place_of(key: str) -> str:
    """What a message about a file must name."""
    parts = key.split("/")
    return parts[1] if len(parts) > 2 or parts[0] == "reviews" else key


def kind_of(key: str) -> str:
    parts = key.split("/")
    if parts[0] == "scenes" and len(parts) > 3:
        return "array documents" if parts[-1] == GROUP else "shards"
    return {"scenes": "scene documents"}.get(parts[0], parts[0]) if len(parts) > 1 else "header"


def names(store: Path) -> frozenset[tuple[str, int]]:
    """Files and their inodes."""
    files = (p for p in store.rglob("*") if p.is_file())
    return frozenset((p.relative_to(store).as_posix(), p.stat().st_ino) for p in files)


@dataclass(frozen=True, slots=True)
class Refusing:
    """A place whose disk refuses to read one document."""

    place: StorageBackend
    key: str

    def __str__(self) -> str:
        return str(self.place)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.place, name)

    def read(self, key: str) -> bytes:
        if key == self.key:
            raise PermissionError(errno.EACCES, "Permission denied", key)
        return self.place.read(key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A change of one document by hand."""

    what: str
    key: str
    change: Callable[[dict[str, Any]], object]


def _edits() -> Iterator[Edit]:
    def scene(what: str, change: Callable[[dict[str, Any]], object]) -> Edit:
        key = f"scenes/{{scene}}/{GROUP}"
        return Edit(what=what, key=key, change=lambda document: change(document["attributes"]))

    def header(what: str, change: Callable[[dict[str, Any]], object]) -> Edit:
        return Edit(what=what, key=GROUP, change=lambda document: change(document["attributes"]))

    def array(what: str, change: Callable[[dict[str, Any]], object]) -> Edit:
        return Edit(what=what, key=f"scenes/{{scene}}/semantics/{GROUP}", change=change)

    yield scene("frame tokens reversed", lambda a: a["frame_tokens"].reverse())
    yield scene("other counts", lambda a: a["counts"].update(trusted=a["counts"]["trusted"] + 1))
    yield scene("other inputs", lambda a: a.update(inputs="0" * 64))
    yield scene("a sha256 dropped", lambda a: a["sha256"].pop("semantics"))
    yield array("axes swapped", lambda d: d["dimension_names"].reverse())
    yield array("int8 for uint8", lambda d: d.update(data_type="int8"))
    yield header("other confidence levels", lambda a: a["levels"].__setitem__(0, 0.001))
    yield header("class names reversed", lambda a: a["taxonomy"]["names"].reverse())
    yield header("grid moved", lambda a: a["grid"]["min_m"].__setitem__(0, -39.6))


EDITS = tuple(_edits())


def describe(counts: Counts) -> str:
    flips = ", ".join(f"{n} in {kind}" for kind, n in sorted(counts.flips.items()))
    return "\n".join(
        (
            f"{counts.flips.total()} flips: {flips}",
            f"{counts.edits} edits by hand, {counts.unreadable} documents that cannot be read",
            f"named by verify {counts.named}, harmless {counts.harmless}; some reader refused "
            f"{counts.refused} of the named ones",
            f"unnoticed {counts.unnoticed}, read as something else {counts.let_in}, exceptions "
            f"that are not ours {counts.wrong_errors}, lost by prune {counts.lost}",
            *(f"  {case}" for case in counts.cases),
        )
    )
