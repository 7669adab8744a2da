"""The review overlay: what reviewers write is there, whoever else writes and whoever is killed."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_scenes import GRID, LEVELS, header, scene, tree

from datasets.errors import SetupError
from datasets.files.seals import sealed
from datasets.labels.store import FrameLabels, LabelStore, MaskBit
from datasets.reviews.entries import Written, from_document, to_document
from datasets.reviews.overlay import (
    EditEntry,
    Entry,
    NoteEntry,
    Reviews,
    Undo,
    Verdict,
    VerdictEntry,
    labels_digest,
)
from datasets.reviews.summary import count_reviews
from datasets.storage.backend import as_backend
from datasets.taxonomy import IGNORE_ID, OCC3D_NUSCENES

ROOT = Path(__file__).resolve().parents[3]
N, K = GRID.n_voxels, OCC3D_NUSCENES.n_classes
CAR, ROAD = 4, 11


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    made = LabelStore.create(tmp_path / "a", header(flow=True))
    for i in range(2):
        made.write_scene(scene(f"s{i}", seed=i, flow=True, evidence=True, instances=True))
    return made


def judge(
    scene_id: str, *frames: int, verdict: Verdict = Verdict.REJECT, note: str = ""
) -> VerdictEntry:
    tokens = tuple(f"{scene_id}-{k}" for k in frames)
    return VerdictEntry(scene_id=scene_id, tokens=tokens, verdict=verdict, note=note)


def paint(scene_id: str, k: int, voxels: list[int], class_id: int) -> EditEntry:
    indices = np.array(voxels, np.int64)
    return EditEntry(scene_id=scene_id, token=f"{scene_id}-{k}", voxels=indices, class_id=class_id)


names = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=30)
notes = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
ids = st.builds("{:016d}-{:016x}".format, st.integers(0, 10**16 - 1), st.integers(0, 2**64 - 1))
written = st.one_of(
    st.builds(
        VerdictEntry,
        scene_id=names,
        tokens=st.lists(names, min_size=1, max_size=5, unique=True).map(tuple),
        verdict=st.sampled_from(Verdict),
        note=notes,
        sampled=st.booleans(),
    ),
    st.builds(NoteEntry, scene_id=names, token=names, note=notes.filter(bool)),
    st.builds(
        EditEntry,
        scene_id=names,
        token=names,
        voxels=st.sets(st.integers(0, N - 1), min_size=1).map(
            lambda those: np.array(sorted(those), np.int64)
        ),
        class_id=st.one_of(st.integers(0, K - 1), st.just(IGNORE_ID)),
        note=notes,
    ),
    st.builds(Undo, entry=ids),
)


@given(what=written, entry_id=ids, reviewer=names)
def test_an_entry_is_read_as_it_was_written(what: Written, entry_id: str, reviewer: str) -> None:
    entry = Entry(
        id=entry_id, time_us=int(entry_id[:16]), reviewer=reviewer, labels="ab" * 32, what=what
    )
    data = to_document(entry)
    assert data.isascii()
    assert from_document(entry_id, data, n_voxels=N, n_classes=K) == entry


ENTRY = Entry(
    id=f"{17:016d}-{5:016x}",
    time_us=17,
    reviewer="ann",
    labels="cd" * 32,
    what=paint("s0", 1, list(range(3, 150, 7)), CAR),
)


@given(data=st.data())
def test_a_damaged_document_is_refused_and_nothing_else(data: st.DataObject) -> None:
    good = bytearray(to_document(ENTRY))
    for _ in range(data.draw(st.integers(1, 3))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(good[: data.draw(st.integers(0, len(good)))])
    try:
        read = from_document(ENTRY.id, cut, n_voxels=N, n_classes=K)
    except ValueError:
        return
    assert isinstance(read.what, EditEntry) and read.id == ENTRY.id
    assert read.what.voxels[0] >= 0 and read.what.voxels[-1] < N
    assert (np.diff(read.what.voxels) > 0).all()


def changed(**fields: object) -> bytes:
    document = json.loads(to_document(ENTRY)) | fields
    return json.dumps(sealed(document)).encode()


PACKED = json.loads(to_document(ENTRY))["voxels"]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"", "not a document"),
        (b"[" * 10**5, "not a document"),
        (b"[1]", "not the document of a review"),
        (to_document(ENTRY).replace(b'"ann"', b'"bob"'), "digest differs"),
        (to_document(ENTRY).replace(b'"digest"', b'"eigest"'), "unknown key 'eigest'"),
        (changed(format_version=2), "format version 2; this code reads 1"),
        (changed(id="0" * 16 + "-" + "0" * 16), "it is of entry"),
        (changed(reviewer=""), "reviewer"),
        (changed(reviewer=3), "reviewer must be a text"),
        (changed(labels="ab"), "digest"),
        (changed(kind="poem"), "unknown kind 'poem'"),
        (changed(kind="judgement", frames=[], verdict="accept", sampled=False), "one frame"),
        (changed(kind="judgement", frames=["a"], verdict="fine", sampled=False), "fine"),
        (changed(kind="judgement", frames=["a"], verdict="accept", sampled=1), "sampled"),
        (changed(kind="remark"), "note is empty"),
        (changed(kind="undo", entry="x"), "not the id of an entry"),
        (changed(**{"class": K}), f"class id {K} is unknown"),
        (changed(**{"class": True}), "whole number"),
        (changed(voxels={**PACKED, "count": PACKED["count"] + 1}), "not the"),
        (changed(voxels={**PACKED, "count": PACKED["count"] - 1}), "not the"),
        (changed(voxels={**PACKED, "count": N + 1}), "voxels in a grid of"),
        (changed(voxels={**PACKED, "count": 0}), "voxels in a grid of"),
        (changed(voxels={**PACKED, "steps": PACKED["steps"][:-8]}), "not the"),
        (changed(voxels={**PACKED, "steps": "AAAA"}), "cannot be read"),
        (changed(voxels=None), "no voxels"),
    ],
)
def test_what_is_wrong_with_a_document_is_said(document: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_document(ENTRY.id, document, n_voxels=N, n_classes=K)


def test_a_stroke_beyond_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="in a grid of 100"):
        from_document(ENTRY.id, to_document(ENTRY), n_voxels=100, n_classes=K)


def test_verdicts_strokes_and_undo_are_there_again_and_the_teacher_is_untouched(
    store: LabelStore, tmp_path: Path
) -> None:
    before = tree(tmp_path / "a")
    reviews = Reviews(store)
    assert reviews.entries() == () and "reviews" not in [p.name for p in (tmp_path / "a").iterdir()]
    first = reviews.add(judge("s0", 0, 1, note="sky is road"), reviewer="ann")
    stroke = reviews.add(paint("s1", 2, [0, 5, 191], CAR), reviewer="ann")
    reviews.add(NoteEntry(scene_id="s1", token="s1-0", note="nice"), reviewer="bob")
    assert reviews.undo("ann") == stroke
    assert reviews.undo("bob") is not None and reviews.undo("bob") is None
    for one in (reviews, Reviews(LabelStore.open(tmp_path / "a"))):
        assert one.entries() == (first,) == one.entries("s0") and one.entries("s1") == ()
        found = one.verdicts("s0")
        assert found.keys() == {"s0-0", "s0-1"} and one.rejected("s0") == found.keys()
        assert found["s0-1"].note == "sky is road" and found["s0-1"].reviewer == "ann"
        assert not found["s0-1"].disputed and one.damaged() == () and one.stale() == ()
    assert reviews.undo("ann") == first and reviews.undo("ann") is None
    assert Reviews(store).entries() == ()
    after = tree(tmp_path / "a")
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("reviews/") for name in after.keys() - before.keys())
    assert len(after) - len(before) == 7  # six entries and the group
    for scene_id in store.scene_ids():
        store.scene(scene_id).verify()


def test_the_most_careful_verdict_of_several_reviewers_stands(store: LabelStore) -> None:
    reviews = Reviews(store)
    assert reviews.verdicts("s0") == {}
    reviews.add(judge("s0", 0, 1, 2), reviewer="ann")
    reviews.add(judge("s0", 0, verdict=Verdict.ACCEPT, note="b"), reviewer="bob")
    reviews.add(judge("s0", 1, 2, verdict=Verdict.UNSURE), reviewer="ann")
    reviews.add(judge("s0", 2, verdict=Verdict.ACCEPT), reviewer="bob")
    reviews.add(judge("s0", 1, verdict=Verdict.UNSURE), reviewer="bob")
    found = reviews.verdicts("s0")
    assert [(found[f"s0-{k}"].verdict, found[f"s0-{k}"].disputed) for k in range(3)] == [
        (Verdict.REJECT, True),
        (Verdict.UNSURE, False),
        (Verdict.UNSURE, True),
    ]
    assert [found[f"s0-{k}"].reviewer for k in range(3)] == ["ann", "bob", "ann"]
    reviews.undo("ann")  # the range that became unsure: the first verdict holds again
    found = reviews.verdicts("s0")
    assert [found[f"s0-{k}"].verdict for k in range(3)] == [Verdict.REJECT] * 3
    counts = count_reviews(reviews)
    assert (counts.accepted, counts.unsure, counts.rejected, counts.disputed) == (0, 0, 3, 3)


def test_a_reviewer_cannot_undo_what_another_one_did(store: LabelStore) -> None:
    reviews = Reviews(store)
    theirs = reviews.add(judge("s0", 0), reviewer="ann")
    with pytest.raises(ValueError, match="bob has no entry"):
        reviews.add(Undo(entry=theirs.id), reviewer="bob")
    forged = replace(theirs, reviewer="bob", what=Undo(entry=theirs.id), id=ENTRY.id, time_us=17)
    store.place.write(f"reviews/{ENTRY.id}.json", to_document(forged))
    assert Reviews(store).entries() == (theirs,)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (judge("s7", 0), "no scene s7"),
        (judge("s0", 3), "scene s0 has no frame s0-3"),
        (paint("s0", 0, [N], CAR), f"voxel {N} in a grid of {N}"),
        (paint("s0", 0, [1], K), f"class id {K} is unknown"),
        (Undo(entry=ENTRY.id), "has no entry"),
    ],
)
def test_what_does_not_fit_the_store_is_not_written(
    store: LabelStore, what: Written, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        Reviews(store).add(what, reviewer="ann")
    with pytest.raises(ValueError, match="reviewer"):
        Reviews(store).add(judge("s0", 0), reviewer="two\nlines")
    assert store.place.files("reviews") == []


@pytest.mark.parametrize("voxels", [[], [3, 3], [4, 2], [-1, 2]])
def test_a_stroke_is_of_ascending_voxels(voxels: list[int]) -> None:
    with pytest.raises(ValueError, match="voxels of a stroke"):
        paint("s0", 0, voxels, CAR)


def frame(store: LabelStore, scene_id: str, k: int) -> FrameLabels:
    return store.scene(scene_id).frame(k)


def test_strokes_are_laid_over_in_order(store: LabelStore) -> None:
    reviews, plain = Reviews(store), frame(store, "s0", 1)
    assert reviews.reviewed(plain, "s0") is plain
    reviews.add(paint("s0", 1, [1, 2, 3, 4], CAR), reviewer="ann")
    reviews.add(paint("s0", 1, [2, 3], ROAD), reviewer="bob")
    reviews.add(paint("s0", 1, [3, 5], IGNORE_ID), reviewer="ann")
    for other in (frame(store, "s0", 0), frame(store, "s1", 1)):
        assert reviews.reviewed(other, other.token[:2]) is other
    got = reviews.reviewed(plain, "s0")
    old, new = plain.semantics.ravel(), got.semantics.ravel()
    assert new[1:6].tolist() == [CAR, ROAD, ROAD, CAR, old[5]]
    trusted = (got.mask.ravel() & MaskBit.TRUSTED) > 0
    assert trusted[1:6].tolist() == [True, True, False, True, False]
    dynamic = (got.mask.ravel() & MaskBit.DYNAMIC) > 0
    assert dynamic[1:5].tolist() == [True, False, False, True]
    top = len(LEVELS) - 1
    assert got.confidence.ravel()[1:6].tolist() == [top, top, 0, top, 0]
    sensors = np.uint8(MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE)
    np.testing.assert_array_equal(got.mask & sensors, plain.mask & sensors)
    others = np.setdiff1d(np.arange(N), [1, 2, 3, 4, 5])
    for name in ("semantics", "confidence", "mask", "flow", "instances"):
        was, now = (getattr(one, name).reshape(N, -1)[others] for one in (plain, got))
        np.testing.assert_array_equal(now, was)
    assert got.flow is not None and plain.flow is not None
    was_moving = np.isin(old[[1, 4]], OCC3D_NUSCENES.dynamic)
    flow = got.flow.reshape(N, 2)
    assert not flow[[2, 3]].any()
    np.testing.assert_array_equal(np.isnan(flow[[1, 4]]).all(-1), ~was_moving)
    assert got.instances is not None and plain.instances is not None
    ids, were = got.instances.ravel(), plain.instances.ravel()
    assert not ids[[2, 3]].any(), "a road is no object"
    assert ids[[1, 4]].tolist() == were[[1, 4]].tolist()
    assert got.hits is plain.hits and got.passes is plain.passes
    counts = count_reviews(reviews)
    assert (counts.painted_frames, counts.painted, counts.ignored) == (1, 3, 2)
    reviews.add(judge("s0", 1), reviewer="bob")
    assert count_reviews(reviews).painted_frames == 0


def test_entries_on_labels_made_anew_are_stale(store: LabelStore, tmp_path: Path) -> None:
    reviews = Reviews(store)
    kept = reviews.add(judge("s1", 0), reviewer="ann")
    old = reviews.add(paint("s0", 0, [7], CAR), reviewer="ann")
    store.place.remove("scenes/s0")
    assert Reviews(store).stale() == (old,)
    store.write_scene(scene("s0", seed=9, flow=True, evidence=True, instances=True))
    again = Reviews(store)
    assert again.stale() == (old,) and again.entries() == (kept,)
    plain = frame(store, "s0", 0)
    assert again.reviewed(plain, "s0") is plain
    new = again.add(paint("s0", 0, [8], CAR), reviewer="ann")
    assert again.entries("s0") == (new,)
    late = reviews.add(paint("s0", 0, [9], CAR), reviewer="bob")  # what bob saw is gone
    assert again.refresh() and late in again.stale()
    assert count_reviews(again).stale == 2
    assert late.labels != new.labels == labels_digest(store.attributes("s0") or {})


def test_foreign_and_torn_files_are_reported_and_nothing_else_is_lost(store: LabelStore) -> None:
    reviews = Reviews(store)
    good = reviews.add(judge("s0", 0), reviewer="ann")
    data = store.place.read(f"reviews/{good.id}.json")
    torn, stranger = f"{7:016d}-{1:016x}.json", f"{8:016d}-{1:016x}.json"
    other = replace(good, id=stranger[:-5], time_us=8, what=judge("s0", 0, 9))
    for name, content in (
        (torn, data[: len(data) // 2]),
        (stranger, to_document(other)),
        ("notes.txt", b"hello"),
        (".hidden", b""),
    ):
        store.place.write(f"reviews/{name}", content)
    reviews.refresh()
    for one in (reviews, Reviews(store)):
        assert one.damaged() == (torn, stranger, "notes.txt")
        assert one.entries() == (good,)
        assert "no such frame" in one.why_damaged(stranger)
        assert "not a document" in one.why_damaged(torn)
    assert not reviews.refresh()


def test_what_others_write_is_seen_after_a_refresh(store: LabelStore) -> None:
    ours, theirs = Reviews(store), Reviews(store)
    said = theirs.add(judge("s0", 0), reviewer="bob")
    assert ours.entries() == ()
    assert ours.refresh() and ours.entries() == (said,)
    assert not ours.refresh()
    theirs.undo("bob")
    assert ours.refresh() and ours.entries() == () and ours.rejected("s0") == frozenset()


def test_an_entry_comes_after_all_that_was_seen_whatever_the_clock_says(
    store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews = Reviews(store)
    first = reviews.add(paint("s0", 0, [1], CAR), reviewer="ann")
    monkeypatch.setattr(time, "time_ns", lambda: first.time_us * 1000 - 10**12)
    other = Reviews(store)
    second = other.add(paint("s0", 0, [1], ROAD), reviewer="bob")
    assert second.id > first.id
    assert Reviews(store).reviewed(frame(store, "s0", 0), "s0").semantics.ravel()[1] == ROAD


def test_a_snapshot_travels_between_processes(store: LabelStore) -> None:
    reviews = Reviews(store)
    reviews.add(paint("s0", 0, [1], CAR), reviewer="ann")
    copy = pickle.loads(pickle.dumps(reviews))
    assert copy.entries() == reviews.entries() and copy.fingerprint() == reviews.fingerprint()
    copy.add(judge("s0", 1), reviewer="ann")
    assert reviews.refresh()


def test_the_fingerprint_changes_with_what_students_would_see_alone(store: LabelStore) -> None:
    reviews = Reviews(store)
    assert reviews.fingerprint() == ""
    reviews.add(judge("s0", 0, verdict=Verdict.ACCEPT), reviewer="ann")
    reviews.add(NoteEntry(scene_id="s0", token="s0-0", note="x"), reviewer="ann")
    assert reviews.fingerprint() == ""
    reviews.add(judge("s0", 0), reviewer="bob")
    rejected = reviews.fingerprint()
    reviews.add(judge("s0", 0), reviewer="ann")
    assert reviews.fingerprint() == rejected != ""
    reviews.add(paint("s1", 0, [4], CAR), reviewer="ann")
    assert reviews.fingerprint() not in ("", rejected)
    reviews.undo("ann")
    assert reviews.fingerprint() == rejected


def test_a_full_disk_is_said_and_nothing_counts(
    store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews = Reviews(store)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SetupError, match=r"reviews: an entry cannot be written: No space left"):
        reviews.add(judge("s0", 0), reviewer="ann")
    assert reviews.entries() == ()
    monkeypatch.undo()
    reviews.add(judge("s0", 0), reviewer="ann")
    assert len(Reviews(store).entries()) == 1 and Reviews(store).damaged() == ()


WRITE = """
import sys
sys.path[:0] = [{root!r}]
from datasets.labels.store import LabelStore
from datasets.reviews.overlay import VerdictEntry, Reviews, Verdict
reviews = Reviews(LabelStore.open(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for i in range(int(sys.argv[3])):
    scene = f"s{{i % 2}}"
    tokens, accept = (f"{{scene}}-0",), Verdict.ACCEPT
    what = VerdictEntry(scene_id=scene, tokens=tokens, verdict=accept, note=str(i))
    reviews.add(what, reviewer=sys.argv[2])
"""


def write_at_once(where: str, n: int, *, writers: int = 2) -> None:
    code = WRITE.format(root=str(ROOT))
    those = [
        subprocess.Popen(
            [sys.executable, "-c", code, where, f"r{i}", str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for i in range(writers)
    ]
    for one in those:
        assert one.stdout is not None and one.stdout.readline() == b"ready\n"
    for one in those:
        assert one.stdin is not None
        one.stdin.write(b"\n")
        one.stdin.close()
    assert [one.wait(timeout=600) for one in those] == [0] * writers


@pytest.mark.parametrize("n", [40, pytest.param(1000, marks=pytest.mark.slow)])
def test_two_processes_at_once_lose_nothing_of_each_other(
    store: LabelStore, tmp_path: Path, n: int
) -> None:
    write_at_once(str(tmp_path / "a"), n)
    reviews = Reviews(store)
    assert reviews.damaged() == ()
    for reviewer in ("r0", "r1"):
        theirs = [e.what for e in reviews.entries() if e.reviewer == reviewer]
        assert [one.note for one in theirs if isinstance(one, VerdictEntry)] == [
            str(i) for i in range(n)
        ]
    assert not (tmp_path / "a/.partial").exists()


PAINT = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import numpy as np
from datasets.labels.store import LabelStore
from datasets.reviews.overlay import Reviews, EditEntry
reviews = Reviews(LabelStore.open(sys.argv[1]))
for i in range(10**6):
    what = EditEntry(scene_id="s0", token="s0-0", voxels=np.arange(150), class_id=3, note=str(i))
    reviews.add(what, reviewer="ann")
    print(i, flush=True)
"""


@pytest.mark.parametrize("after", [3, 17, 40])
def test_a_painter_killed_at_any_moment_loses_at_most_the_last_stroke(
    store: LabelStore, tmp_path: Path, after: int
) -> None:
    code = PAINT.format(root=str(ROOT), tests=str(ROOT / "tests" / "helpers"))
    painter = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE
    )
    assert painter.stdout is not None
    for _ in range(after):
        painter.stdout.readline()
    time.sleep(after / 4000)
    os.kill(painter.pid, 9)
    painter.wait()
    said = after + len(painter.stdout.read().split())
    painter.stdout.close()
    reviews = Reviews(store)
    assert reviews.damaged() == ()
    notes = [one.what.note for one in reviews.entries() if isinstance(one.what, EditEntry)]
    assert notes == [str(i) for i in range(len(notes))]
    assert said <= len(notes) <= said + 1
    reviews.add(judge("s0", 0), reviewer="bob")
    again = LabelStore.open_or_create(tmp_path / "a", header(flow=True))  # sweeps what it left
    assert not (tmp_path / "a/.partial").exists()
    assert len(Reviews(again).entries()) == len(notes) + 1


def test_reviews_of_a_remote_store(bucket: str) -> None:
    url = f"{bucket}/reviewed"
    remote = LabelStore.create(url, header())
    for i in range(2):
        remote.write_scene(scene(f"s{i}", seed=i))
    write_at_once(url, 15)
    reviews = Reviews(remote)
    assert len(reviews.entries()) == 30 and reviews.damaged() == ()
    stroke = reviews.add(paint("s1", 2, [0, 5, 191], CAR), reviewer="ann")
    other = Reviews(LabelStore.open(url))
    assert other.entries()[-1] == stroke
    assert other.reviewed(frame(remote, "s1", 2), "s1").semantics.ravel()[191] == CAR
    assert reviews.undo("ann") == stroke
    assert other.refresh() and len(other.entries()) == 30 and not other.refresh()
    remote.place.write("reviews/torn.json", b"{")
    assert other.damaged() == () and not other.refresh() and other.damaged() == ("torn.json",)


def test_a_place_creates_once(bucket: str, tmp_path: Path) -> None:
    for where in (tmp_path / "p", f"{bucket}/p"):
        at = as_backend(where)
        assert at.list_files("x") == []
        assert at.create("x/b", b"1") and not at.create("x/b", b"2") and at.create("x/a", b"3")
        at.write("x/.hidden", b"")
        at.write("x/below/c", b"")
        assert at.list_files("x") == ["a", "b"] and at.read("x/b") == b"1"


def test_a_file_system_without_links_is_written_whole(
    store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(a: object, b: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    said = Reviews(store).add(judge("s0", 0), reviewer="ann")
    assert Reviews(store).entries() == (said,)
    assert not store.place.create(f"reviews/{said.id}.json", b"")
