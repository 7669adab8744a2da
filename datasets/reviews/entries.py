"""What a reviewer writes: verdicts, notes, strokes of the brush, and the JSON document of each.

Document of an entry (ASCII), in a file of the name ``<id>.json``::

    {"format": "label-review", "format_version": 1, "id": "<16 digits>-<16 hex digits>",
     "reviewer": "...", "labels": "<sha256>",
     "kind": "judgement" | "remark" | "stroke" | "undo", ..., "digest": "<sha256>"}

The digits of an id are its time in microseconds since 1970: ids sort by time. The voxels of a
stroke are the differences of their sorted indices, little-endian uint32, zlib, base64.
"""

from __future__ import annotations

import base64
import enum
import json
import re
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.files.bounded_files import parsing
from datasets.files.json_files import json_text
from datasets.files.seals import DIGEST, fault_of_seal, sealed
from datasets.taxonomy import IGNORE_ID

FORMAT, FORMAT_VERSION = "label-review", 1
_KEYS = {
    *("format", "format_version", "id", "reviewer", "labels", "kind", DIGEST),
    *("scene", "frames", "frame", "verdict", "sampled", "note", "class", "voxels", "entry"),
}
MOST_BYTES = 64 * 2**20
"""Of a document."""
MOST_NOTE, MOST_NAME = 10_000, 200
"""Characters of a note, and of a reviewer's name or a frame's token."""

_ID = re.compile(r"(\d{16})-[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Verdict(enum.StrEnum):
    """On the labels of a frame. UNSURE: somebody else should look."""

    ACCEPT = "accept"
    REJECT = "reject"
    UNSURE = "unsure"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictEntry:
    """A verdict on one frame or a range of frames.

    Attributes:
        tokens: of the frames, at least one.
        sampled: the frame was drawn by chance, not picked (``viz/review_queue``): it counts for
            the estimate of the share of wrong frames.

    Raises:
        ValueError: no token, one twice, or a text that is too long.
    """

    scene_id: str
    tokens: tuple[str, ...]
    verdict: Verdict
    note: str = ""
    sampled: bool = False

    def __post_init__(self) -> None:
        if not self.tokens or len(set(self.tokens)) != len(self.tokens):
            raise ValueError(f"a verdict is on one frame or more, each once: {self.tokens}")
        for token in self.tokens:
            _check_name("frame", token)
        _check_note(self.note)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteEntry:
    """A note on a frame, without a verdict. Raises ``ValueError`` where it is empty or too long."""

    scene_id: str
    token: str
    note: str

    def __post_init__(self) -> None:
        _check_name("frame", self.token)
        _check_note(self.note)
        if not self.note:
            raise ValueError("the note is empty")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EditEntry:
    """Voxels of a frame painted to one class, or taken out.

    Attributes:
        voxels: (N,) int64 flat C-order indices in the store's grid, ascending, each once.
        class_id: of the store's taxonomy, free space included, or ``IGNORE_ID``.

    Raises:
        ValueError: voxels are of another shape or dtype, none, not ascending or negative; the
            class cannot be one; the note is too long.
    """

    scene_id: str
    token: str
    voxels: NDArray[np.int64]
    class_id: int
    note: str = ""

    def __post_init__(self) -> None:
        _check_name("frame", self.token)
        _check_note(self.note)
        if self.voxels.dtype != np.int64 or self.voxels.ndim != 1 or not self.voxels.size:
            actual = f"{self.voxels.dtype} {self.voxels.shape}"
            raise ValueError(f"voxels of a stroke must be int64 (N,), at least one, got {actual}")
        if self.voxels[0] < 0 or (self.voxels[1:] <= self.voxels[:-1]).any():
            raise ValueError("voxels of a stroke must be ascending, each once, from 0")
        if not 0 <= self.class_id <= IGNORE_ID:
            raise ValueError(f"class id {self.class_id} is not in 0..{IGNORE_ID}")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, EditEntry)
            and (self.scene_id, self.token, self.class_id, self.note)
            == (other.scene_id, other.token, other.class_id, other.note)
            and np.array_equal(self.voxels, other.voxels)
        )

    def __hash__(self) -> int:
        return hash((self.scene_id, self.token, self.class_id, self.note, self.voxels.tobytes()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """Takes back an entry of the same reviewer, by its id."""

    entry: str

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.entry):
            raise ValueError(f"{self.entry!r} is not the id of an entry")


Written = VerdictEntry | NoteEntry | EditEntry | Undo
_KINDS: dict[type[Written], str] = {
    VerdictEntry: "judgement",
    NoteEntry: "remark",
    EditEntry: "stroke",
    Undo: "undo",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that a reviewer did.

    Attributes:
        id: sorts by time; unique.
        time_us: since 1970, by the reviewer's clock.
        labels: digest of the scene's labels as they were reviewed (``reviews.labels_digest``); of
            an undo, that of the entry which it takes back.

    Raises:
        ValueError: an id, a digest or a name that cannot be one, or a time that is not the id's.
    """

    id: str
    time_us: int
    reviewer: str
    labels: str
    what: Written

    def __post_init__(self) -> None:
        match = _ID.fullmatch(self.id)
        if not match or int(match[1]) != self.time_us:
            raise ValueError(f"{self.id!r} is not the id of an entry of {self.time_us} us")
        if not _SHA256.fullmatch(self.labels):
            raise ValueError(f"{self.labels!r} is not the digest of a scene's labels")
        _check_name("reviewer", self.reviewer)


def to_document(entry: Entry) -> bytes:
    """Raises ``ValueError`` where it is larger than a reader would take."""
    what = entry.what
    document: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "id": entry.id,
        "reviewer": entry.reviewer,
        "labels": entry.labels,
        "kind": _KINDS[type(what)],
    }
    match what:
        case VerdictEntry():
            document |= {"scene": what.scene_id, "frames": list(what.tokens)}
            document |= {"verdict": what.verdict.value, "sampled": what.sampled, "note": what.note}
        case NoteEntry():
            document |= {"scene": what.scene_id, "frame": what.token, "note": what.note}
        case EditEntry():
            document |= {"scene": what.scene_id, "frame": what.token, "class": what.class_id}
            document |= {"voxels": _packed(what.voxels), "note": what.note}
        case Undo():
            document |= {"entry": what.entry}
    data = (json_text(sealed(document)) + "\n").encode("ascii")
    if len(data) > MOST_BYTES:
        raise ValueError(f"an entry of {len(data):,} bytes; at most {MOST_BYTES:,}")
    return data


def from_document(entry_id: str, data: bytes, *, n_voxels: int, n_classes: int) -> Entry:
    """Inverse of ``to_document``, of a file that may hold anything.

    Args:
        entry_id: as the file's name has it.
        n_voxels, n_classes: of the store.

    Raises:
        ValueError: it is not the document of such an entry; says why.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"{len(data):,} bytes; at most {MOST_BYTES:,}")
    try:
        document = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a document of JSON: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError("not the document of a review")
    with parsing():
        fault = fault_of_seal(document, wanted=False)
    if fault:
        raise ValueError(fault)
    if odd := sorted(document.keys() - _KEYS):
        raise ValueError(f"unknown key {odd[0]!r:.80}")
    if document.get("format_version") != FORMAT_VERSION:
        version = document.get("format_version")
        raise ValueError(f"format version {version!r}; this code reads {FORMAT_VERSION}")
    if document.get("id") != entry_id or not _ID.fullmatch(entry_id):
        raise ValueError(f"it is of entry {document.get('id')!r}")
    return Entry(
        id=entry_id,
        time_us=int(entry_id[:16]),
        reviewer=_text(document, "reviewer"),
        labels=_text(document, "labels"),
        what=_written(document, n_voxels, n_classes),
    )


def _written(document: dict[str, Any], n_voxels: int, n_classes: int) -> Written:
    match document.get("kind"):
        case "judgement":
            tokens, sampled = document.get("frames"), document.get("sampled")
            if not isinstance(tokens, list) or not all(isinstance(t, str) for t in tokens):
                raise ValueError("frames must be a list of tokens")
            if not isinstance(sampled, bool):
                raise ValueError(f"sampled must be true or false, not {sampled!r}")
            return VerdictEntry(
                scene_id=_text(document, "scene"),
                tokens=tuple(tokens),
                verdict=Verdict(_text(document, "verdict")),
                note=_text(document, "note"),
                sampled=sampled,
            )
        case "remark":
            note = _text(document, "note")
            return NoteEntry(
                scene_id=_text(document, "scene"), token=_text(document, "frame"), note=note
            )
        case "stroke":
            class_id = _integer(document, "class")
            if not (0 <= class_id < n_classes or class_id == IGNORE_ID):
                raise ValueError(f"class id {class_id} is unknown")
            return EditEntry(
                scene_id=_text(document, "scene"),
                token=_text(document, "frame"),
                voxels=_unpacked(document.get("voxels"), n_voxels),
                class_id=class_id,
                note=_text(document, "note"),
            )
        case "undo":
            return Undo(entry=_text(document, "entry"))
        case kind:
            raise ValueError(f"unknown kind {kind!r}")


def _packed(voxels: NDArray[np.int64]) -> dict[str, Any]:
    steps = np.diff(voxels, prepend=0)
    if steps.max() >= 2**32:
        raise ValueError(f"voxel {voxels[-1]} is beyond any grid")
    packed = zlib.compress(steps.astype("<u4").tobytes())
    return {"count": len(voxels), "steps": base64.b64encode(packed).decode("ascii")}


def _unpacked(packed_voxels: object, n_voxels: int) -> NDArray[np.int64]:
    if not isinstance(packed_voxels, dict):
        raise ValueError("there are no voxels")
    count = _integer(packed_voxels, "count")
    if not 1 <= count <= n_voxels:
        raise ValueError(f"{count} voxels in a grid of {n_voxels}")
    inflate = zlib.decompressobj()
    try:
        packed = base64.b64decode(_text(packed_voxels, "steps"), validate=True)
        steps = inflate.decompress(packed, 4 * count)
        trailing = inflate.decompress(inflate.unconsumed_tail, 1)  # reads on to the checksum
    except zlib.error as error:
        raise ValueError(f"its voxels cannot be read: {error}") from None
    if len(steps) != 4 * count or trailing or not inflate.eof:
        raise ValueError(f"its voxels are not the {count} that it names")
    voxels = np.frombuffer(steps, "<u4").cumsum(dtype=np.int64)
    if voxels[-1] >= n_voxels:
        raise ValueError(f"voxel {voxels[-1]} in a grid of {n_voxels}")
    return voxels


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} must be a text, not {value!r:.80}")
    return value


def _integer(document: dict[str, Any], key: str) -> int:
    value = document.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key} must be a whole number, not {value!r:.80}")
    return value


def _check_name(what: str, name: str) -> None:
    if not (0 < len(name) <= MOST_NAME and name.isprintable()):
        raise ValueError(f"{what} {name!r:.80} must be 1..{MOST_NAME} printable characters")


def _check_note(note: str) -> None:
    if len(note) > MOST_NOTE:
        raise ValueError(f"a note of {len(note)} characters; at most {MOST_NOTE}")
    try:
        note.encode()
    except UnicodeEncodeError:
        raise ValueError("the note has characters that are none") from None
