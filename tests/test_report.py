"""What the report of a label store promises: true numbers, all escaped, nothing fetched."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from label_scenes import tree
from PIL import Image

from datasets.benchmarks.catalogue import Benchmark
from datasets.benchmarks.truth import Truth
from datasets.errors import SceneError, SetupError
from datasets.geometry.grid import VoxelGrid
from datasets.label_store import LabelStore, MaskBit, SceneLabels, StoreHeader
from datasets.metrics.calibration import calibration_error, risk_coverage
from datasets.reviews import Judgement, Remark, Reviews, Verdict
from datasets.taxonomy import IGNORE_ID, OCC3D_NUSCENES
from viz.report_audit import read_audit
from viz.report_command import main
from viz.report_markup import tag
from viz.report_statistics import RINGS, TruthFolder, store_numbers

REPOSITORY = Path(__file__).resolve().parent.parent
GRID = VoxelGrid(min_m=(-30.0, -30.0, -1.0), size_m=(1.5, 1.5, 1.5), shape=(40, 40, 4))
LEVELS = (0.0, 0.5, 0.9, 0.99)
OBSERVED = MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE
FREE, N = OCC3D_NUSCENES.free_id, OCC3D_NUSCENES.n_classes
HOSTILE = "<script>alert('x')</script> & \"quoted\""


def provenance() -> dict[str, object]:
    rng = np.random.default_rng(8)
    seen = rng.integers(0, 1000, (N, len(LEVELS)))
    promised = {"threshold": 0.9, "error": 0.03, "coverage": 0.5, "coverage_by_ring": [0.5]}
    return {
        "source": "city",
        "preset": HOSTILE,
        "weights_sha256": "ab" * 32,
        "config": {
            "past_sweeps": 4,
            "promise": {
                "max_error": 0.05,
                "confidence": 0.9,
                "test": "t",
                "scenes": 40,
                "thresholds": [2] * N,
                "groups": {"occupied": promised, "free": promised},
                "class_error": [0.0123, *[None] * (N - 1)],
                "class_coverage": [0.5] * N,
            },
        },
        "software": {"torch": "2.9"},
        "calibration": {
            "counts": [10] * N,
            "method": "class",
            "reliability": {"voxels": seen.tolist(), "right": (seen * 3 // 4).tolist()},
        },
    }


def labels(scene_id: str, seed: int, *, frames: int = 3) -> SceneLabels:
    rng = np.random.default_rng(seed)
    shape = (frames, *GRID.shape)
    semantics = np.where(rng.random(shape) < 0.7, FREE, rng.integers(0, N, shape))
    semantics[rng.random(shape) < 0.01] = IGNORE_ID
    return SceneLabels(
        scene_id=scene_id,
        frame_tokens=tuple(f"{scene_id}-{k}" for k in range(frames)),
        timestamps_us=np.arange(frames, dtype=np.int64),
        T_global_grid=np.stack([np.eye(4)] * frames),
        semantics=semantics.astype(np.uint8),
        confidence=rng.integers(0, len(LEVELS), shape, dtype=np.uint8),
        mask=rng.integers(0, 16, shape, dtype=np.uint8),
    )


SCENES = (labels("scene-a", 1), labels("scene-b", 2, frames=2))


def header(**changes: object) -> StoreHeader:
    fields: dict[str, object] = {
        "grid": GRID,
        "taxonomy": OCC3D_NUSCENES,
        "levels": LEVELS,
        "licence": "CC0-1.0",
        "provenance": provenance(),
        "run_id": "run-1",
    }
    return StoreHeader(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "labels.zarr"
    store = LabelStore.create(path, header())
    for scene in SCENES:
        store.write_scene(scene)
    store.quarantine("scene-q", HOSTILE, f"Traceback:\n  {HOSTILE}")
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "labels.zarr"))


def report(store: Path, *arguments: str, code: int = 0) -> str:
    """The page of a store, written by the command."""
    out = store.parent / "report.html"
    asked = [str(store), "--out", str(out), "--renderer", "plain", *arguments]
    if "--pictures" not in asked:
        asked += ["--pictures", "1"]
    assert main(asked) == code
    return out.read_text(encoding="utf-8")


class Cells(HTMLParser):
    """Texts of the rows of every table by its caption; every attribute that fetches something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self._caption = self._text = ""
        self.feed(page)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(name)
        self.fetched += [v or "" for k, v in attributes if k in ("src", "href", "srcset", "action")]
        if name == "tr":
            self.tables.setdefault(self._caption, []).append([])
        if name in ("td", "th", "caption"):
            self._text = ""

    def handle_endtag(self, name: str) -> None:
        if name == "caption":
            self._caption = self._text
        if name in ("td", "th"):
            self.tables[self._caption][-1].append(self._text.replace("\u00a0", " "))

    def handle_data(self, data: str) -> None:
        self._text += data

    def row(self, caption: str, first: str) -> dict[str, str]:
        heads, *rows = self.tables[caption]
        (found,) = [row for row in rows if row[0] == first]
        return dict(zip(heads, found, strict=True))


def observed_voxels() -> dict[str, np.ndarray]:
    """What the report counts, put together in one go."""
    rings = RINGS.of(GRID)
    parts: dict[str, list[np.ndarray]] = {k: [] for k in ("semantics", "level", "trusted", "ring")}
    for scene in SCENES:
        for frame in scene.frames():
            some = ((frame.mask & OBSERVED) > 0) & (frame.semantics != IGNORE_ID)
            parts["semantics"].append(frame.semantics[some])
            parts["level"].append(frame.confidence[some])
            parts["trusted"].append((frame.mask[some] & MaskBit.TRUSTED) > 0)
            parts["ring"].append(rings[some])
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}


def test_class_table_equals_a_direct_count(store: Path) -> None:
    cells, voxels = Cells(report(store)), observed_voxels()
    levels = np.asarray(LEVELS)
    everywhere = voxels["trusted"].mean()
    for i, name in enumerate(OCC3D_NUSCENES.names):
        mine = voxels["semantics"] == i
        trusted, level = voxels["trusted"][mine], voxels["level"][mine]
        row = cells.row("Voxels, trust and confidence per class", name.replace("_", " "))
        assert row["Observed voxels"] == f"{mine.sum():,}"
        assert row["Share"] == f"{100 * mine.mean():.2f} %"
        assert row["Trusted"] == f"{100 * trusted.mean():.1f} %"
        assert float(row["Mean confidence"]) == pytest.approx(levels[level].mean(), abs=6e-4)
        wrong = (1 - levels[level][trusted]).mean()
        assert float(row["Expected wrong"][:-2]) == pytest.approx(100 * wrong, abs=0.06)
        assert float(row["Balance kept"]) == pytest.approx(trusted.mean() / everywhere, abs=6e-3)
    assert (
        cells.row("Voxels, trust and confidence per class", "others")["Wrong in calibration"]
        == "1.23 %"
    )


def test_distance_table_equals_a_direct_count(store: Path) -> None:
    cells, voxels = Cells(report(store)), observed_voxels()
    occupied = voxels["semantics"] != FREE
    for ring, name in enumerate(RINGS.names):
        here = voxels["ring"] == ring
        row = cells.row("Voxels, trust and confidence per ring of distance", name)
        if not here.any():
            assert set(row.values()) == {name, "-"}
            continue
        assert row["Observed voxels"] == f"{here.sum():,}"
        assert row["Occupied"] == f"{100 * occupied[here].mean():.1f} %"
        for title, ids in (("occupied", occupied), ("free", ~occupied)):
            kept = voxels["trusted"][here & ids].mean()
            assert row[f"Trusted of {title}"] == f"{100 * kept:.1f} %"


def test_numbers_stream_to_the_same_sums(made: Path) -> None:
    numbers, voxels = store_numbers(LabelStore.open(made)), observed_voxels()
    want = np.zeros_like(numbers.labels)
    places = [voxels[k].astype(int) for k in ("semantics", "ring", "level", "trusted")]
    np.add.at(want, tuple(places), 1)
    assert np.array_equal(numbers.labels, want)
    assert np.array_equal(sum(s.labels for s in numbers.scenes), want.sum((0, 1)))
    assert numbers.frames == 5 and numbers.voxels == 5 * GRID.n_voxels
    lidar = sum(int(((s.mask & MaskBit.LIDAR_OBSERVED) > 0).sum()) for s in SCENES)
    assert sum(s.lidar for s in numbers.scenes) == lidar
    wrong = 1 - np.asarray(LEVELS)
    for scene, found in zip(SCENES, numbers.scenes, strict=True):
        for k, frame in enumerate(scene.frames()):
            some = ((frame.mask & OBSERVED) > 0) & (frame.semantics != IGNORE_ID)
            assert found.doubt[k] == pytest.approx(wrong[frame.confidence[some]].mean())


def test_calibration_figures_are_those_of_the_header(store: Path) -> None:
    cells = Cells(report(store))
    measured = provenance()["calibration"]["reliability"]  # type: ignore[index]
    seen, right = (np.asarray(measured[k]) for k in ("voxels", "right"))
    occupied = np.arange(N) != FREE
    heads, *rows = cells.tables["Calibration error and risk"]
    (found,) = [r for r in rows if r[0].startswith("calibration") and r[1] == "occupied"]
    row = dict(zip(heads, found, strict=True))
    n, good, levels = seen[occupied].sum(0), right[occupied].sum(0), np.asarray(LEVELS)
    assert float(row["ECE"]) == pytest.approx(calibration_error(levels, n, good), abs=6e-5)
    assert float(row["AURC"]) == pytest.approx(risk_coverage(levels, n, good).area, abs=6e-5)


def test_whatever_comes_from_data_is_escaped(store: Path) -> None:
    reviews = Reviews(LabelStore.open(store))
    note = Remark(scene_id="scene-a", token="scene-a-0", note=HOSTILE)
    reviews.add(note, reviewer="<b>ann</b>")
    page = report(store, "--audit", str(audit_file(store.parent)))
    assert "<script" not in page and "<b>" not in page
    assert page.count(html.escape(HOSTILE)) >= 5  # preset, reason, detail, note, fault
    assert tag("a", HOSTILE, href=HOSTILE) == (
        f'<a href="{html.escape(HOSTILE)}">{html.escape(HOSTILE)}</a>'
    )


def test_page_asks_for_nothing_from_anywhere(store: Path) -> None:
    page = report(store, "--audit", str(audit_file(store.parent)))
    cells = Cells(page)
    assert cells.fetched
    assert all(v.startswith(("#", "data:image/webp;base64,")) for v in cells.fetched)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & set(cells.tags)
    assert "url(" not in page and "@import" not in page and "http" not in page


def test_links_lead_to_sections_and_pictures_have_words(store: Path) -> None:
    page = report(store)
    for target in set(re.findall(r'href="#([a-z]+)"', page)):
        assert f'id="{target}"' in page
    images = re.findall(r"<img [^>]*>", page)
    assert images and all(re.search(r'alt="[^"]{10,}"', image) for image in images)


def test_what_is_missing_is_said_with_the_command_that_helps(store: Path) -> None:
    page = html.unescape(report(store, "--source", "nuscenes", "--pictures", "0"))
    audit = f"python autolabel/audit.py {store} --json audit.json --source nuscenes --root LOG"
    assert audit in page
    assert "No ground truth given" in page
    assert "No reviews yet" in page
    assert "name the nuscenes log with --root" in page
    assert "Pictures were not asked for" in page


def test_store_without_any_scene_gives_a_page(tmp_path: Path) -> None:
    path = tmp_path / "labels.zarr"
    LabelStore.create(path, header(provenance={}))
    page = report(path)
    assert "The store holds no scene yet." in page and "No scene is there." in page
    assert "does not tell how its confidence was learnt" in page


def damage_chunk(store: Path) -> None:
    (shard,) = [p for p in (store / "scenes/scene-b/semantics/c").rglob("*") if p.is_file()]
    data = bytearray(shard.read_bytes())
    data[10:200] = bytes(190)
    shard.write_bytes(bytes(data))


def damage_attributes(store: Path) -> None:
    path = store / "scenes/scene-b/zarr.json"
    group = json.loads(path.read_text())
    del group["attributes"]["frame_tokens"], group["attributes"]["counts"]
    path.write_text(json.dumps(group))


def damage_levels(store: Path) -> None:
    """Fewer levels in the header than the voxels have."""
    path = store / "zarr.json"
    group = json.loads(path.read_text())
    group["attributes"]["levels"] = list(LEVELS[:3])
    group["attributes"]["provenance"] = {}
    path.write_text(json.dumps(group))


@pytest.mark.parametrize("damage", [damage_chunk, damage_attributes])
def test_damaged_scene_is_named_and_the_others_are_reported(
    damage: object, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(damage)
    damage(store)
    cells = Cells(report(store, code=1))
    assert [row[0] for row in cells.tables["Unreadable scenes"][1:]] == ["scene-b"]
    assert [row[0] for row in cells.tables["Scenes, worst first"][1:]] == ["scene-a"]
    assert "bad scene scene-b" in capsys.readouterr().err


def test_levels_unknown_to_the_header_make_scenes_bad(store: Path) -> None:
    damage_levels(store)
    cells = Cells(report(store, code=1))
    assert [row[0] for row in cells.tables["Unreadable scenes"][1:]] == ["scene-a", "scene-b"]
    assert all("level 3" in row[1] for row in cells.tables["Unreadable scenes"][1:])


def test_damaged_provenance_and_notes_are_said(store: Path) -> None:
    path = store / "zarr.json"
    group = json.loads(path.read_text())
    group["attributes"]["provenance"]["calibration"]["reliability"]["right"] = [[1]]
    group["attributes"]["provenance"]["config"]["promise"]["class_error"] = "none"
    path.write_text(json.dumps(group))
    (store / "quarantine/scene-q/zarr.json").write_text("{}")
    page = report(store)
    assert "damaged provenance: calibration" in page and "damaged provenance: promise" in page
    assert "the note on it cannot be read" in page


def audit_file(folder: Path, **changes: object) -> Path:
    scene = {
        "score": 0.5,
        "frames": 3,
        "expected_error": 0.1,
        "untrusted": 0.2,
        "votes": {"misses": 0.031, "flicker": None},
        "flips": None,
        "fit": 0.8,
        "pose_noise_m": None,
        "problems": [],
    }
    data = {
        "format": "label-audit",
        "format_version": 1,
        "what": "label store labels.zarr",
        "scenes": [
            {"scene_id": "scene-b"} | scene,
            {"scene_id": "scene-a"} | scene | {"score": 0.4},
        ],
        "by_class": {"misses": {"car": [3, 40]}, "flicker": {}},
        "by_range": {"misses": {"0-10 m": [3, 40]}, "flicker": {}},
        "faults": [{"name": "pose jumps", "scene_id": "scene-b", "evidence": HOSTILE}],
        "set_aside": {"scene-c": "no LiDAR"},
        "notes": ["flips were not asked for"],
    }
    path = folder / "audit.json"
    path.write_text(json.dumps(data | changes))
    return path


def test_audit_ranks_names_faults_and_counts_votes(store: Path) -> None:
    cells = Cells(report(store, "--audit", str(audit_file(store.parent))))
    ranked = cells.tables["Scenes, worst first"][1:]
    assert [row[0] for row in ranked] == ["scene-b", "scene-a"]
    row = cells.row("Scenes, worst first", "scene-b")
    assert (row["Score"], row["Misses"], row["Flicker"]) == ("0.500", "3.10 %", "-")
    faults = cells.tables["Faults that the audit names"][1:]
    assert faults == [["pose jumps", "scene-b", HOSTILE]]
    votes = dict(zip(*cells.tables["Votes by class"], strict=True))
    assert (votes["Class"], votes["Misses"]) == ("car", "7.5 %")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format": "other"}, "not a report"),
        ({"format_version": 9}, "version 9"),
        ({"scenes": [{"scene_id": "a"}]}, "damaged report"),
        ({"by_class": {"misses": {"car": [5, 4]}}}, "5 of 4"),
    ],
    ids=["other format", "other version", "no score", "impossible votes"],
)
def test_other_audit_is_refused_before_the_store_is_read(
    changes: dict[str, object],
    named: str,
    made: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = audit_file(tmp_path, **changes)
    assert main([str(made), "--audit", str(path), "--out", str(tmp_path / "r.html")]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_audit_that_is_no_json_is_a_users_fault(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(SetupError, match="not JSON"):
        read_audit(tmp_path / "a.json")


def test_reviews_are_counted_and_nothing_of_the_store_changes(store: Path) -> None:
    reviews = Reviews(LabelStore.open(store))
    first = Judgement(scene_id="scene-a", tokens=("scene-a-0", "scene-a-1"), verdict=Verdict.ACCEPT)
    second = Judgement(
        scene_id="scene-a", tokens=("scene-a-1",), verdict=Verdict.REJECT, note="a wall is missing"
    )
    reviews.add(first, reviewer="ann")
    reviews.add(second, reviewer="bob")
    before = tree(store)
    cells = Cells(report(store))
    assert tree(store) == before
    rows = {row[0]: row[1:4] for row in cells.tables["Entries by reviewer and kind"]}
    assert rows["ann"] == ["2", "0", "0"] and rows["bob"] == ["0", "1", "0"]
    assert rows["what stands, frames"] == ["1", "1", "0"]
    assert cells.tables["Frames that reviewers dispute"][1:] == [["scene-a", "1", "reject"]]
    assert [row[-1] for row in cells.tables["Notes of the reviewers"][1:]] == ["a wall is missing"]


def test_folder_that_cannot_be_written_is_a_users_fault(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "report.html"
    assert main([str(made), "--pictures", "0", "--out", str(out)]) == 2
    assert "--out" in capsys.readouterr().err


@pytest.mark.parametrize("folder", [".", "viz"])
def test_the_literal_command_writes_a_page(folder: str, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report.html"
    script = "viz/report.py" if folder == "." else "report.py"
    done = subprocess.run(
        [sys.executable, script, str(store), "--pictures", "0", "--out", str(out)],
        cwd=REPOSITORY / folder,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


class Log:
    """A log that knows its scenes' frames, and nothing else of them."""

    def __init__(self, lacks: str = "") -> None:
        self.lacks = lacks

    def scene(self, scene_id: str) -> SimpleNamespace:
        if scene_id == self.lacks:
            raise KeyError(scene_id)
        tokens = next(s.frame_tokens for s in SCENES if s.scene_id == scene_id)
        return SimpleNamespace(frames=[SimpleNamespace(token=token) for token in tokens])


def truth_folder(folder: Path, **log: str) -> TruthFolder:
    """Truth of all frames but scene-b's last: what is labelled, one in four voxels of it changed,
    and one in ten not scored."""
    rng = np.random.default_rng(3)
    for scene in SCENES:
        for frame in scene.frames():
            true = np.where(frame.semantics == IGNORE_ID, FREE, frame.semantics)
            true = np.where(rng.random(GRID.shape) < 0.25, (true + 1) % N, true)
            scored = rng.random(GRID.shape) < 0.9
            if frame.token != "scene-b-1":
                np.savez(folder / f"{frame.token}.npz", true=true.astype(np.uint8), scored=scored)

    def read(path: Path) -> Truth:
        try:
            with np.load(path, allow_pickle=False) as found:
                true, scored = found["true"], found["scored"]
        except ValueError as error:
            raise SceneError(where=str(path), rule="not a label file") from error
        return Truth(grid=GRID, taxonomy=OCC3D_NUSCENES, semantics=true, mask_camera=scored)

    known = Benchmark(
        name="test",
        grid=GRID,
        taxonomy=OCC3D_NUSCENES,
        frame="ego",
        mask="camera-visible",
        path=lambda root, source, frame: root / f"{frame.token}.npz",
        read=read,
    )
    return TruthFolder(benchmark=known, root=folder, source=Log(**log))  # type: ignore[arg-type]


def test_measured_errors_equal_a_direct_comparison(made: Path, tmp_path: Path) -> None:
    numbers = store_numbers(LabelStore.open(made), truth_folder(tmp_path))
    scored = right = kept = 0
    for scene in SCENES:
        for frame in scene.frames():
            if frame.token == "scene-b-1":
                continue
            with np.load(tmp_path / f"{frame.token}.npz", allow_pickle=False) as found:
                judged = found["scored"] & ((frame.mask & OBSERVED) > 0)
                judged &= frame.semantics != IGNORE_ID
                good = judged & (found["true"] == frame.semantics)
            scored, right = scored + int(judged.sum()), right + int(good.sum())
            kept += int((judged & ((frame.mask & MaskBit.TRUSTED) > 0)).sum())
    assert (numbers.scored.sum(), numbers.right.sum()) == (scored, right)
    assert numbers.scored[..., 1].sum() == kept
    assert 0.2 < 1 - right / scored < 0.3
    first, second = numbers.scenes
    assert np.isfinite(first.wrong).all() and np.isnan(second.wrong[1])
    assert first.worst_frame == int(first.wrong.argmax()) and second.worst_frame == 0
    assert numbers.truth_damaged == {}


def test_damaged_truth_is_named_and_truth_of_other_scenes_is_not(
    made: Path, tmp_path: Path
) -> None:
    truth = truth_folder(tmp_path, lacks="scene-b")
    (tmp_path / "scene-a-1.npz").write_text("no truth")
    numbers = store_numbers(LabelStore.open(made), truth)
    assert list(numbers.truth_damaged) == ["scene-a"]
    assert "scene-a-1.npz" in numbers.truth_damaged["scene-a"]
    assert len(numbers.scenes) == 2 and numbers.scenes[1].scored == 0
    assert np.isnan(numbers.scenes[0].wrong[1]) and np.isfinite(numbers.scenes[0].wrong[0])


def test_chromium_shows_the_page_without_complaint(store: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    report(store, "--audit", str(audit_file(store.parent)))
    picture = tmp_path / "page.png"
    done = subprocess.run(
        [
            chromium,
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--hide-scrollbars", "--enable-logging=stderr", "--window-size=1000,4000"),
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={picture}",
            (store.parent / "report.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        check=False,
    )
    assert picture.is_file(), done.stderr
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []
    with Image.open(picture) as image:
        assert image.size == (1000, 4000)
        seen = image.convert("RGB").resize((50, 200)).getcolors(10_000)
        assert seen is not None and len(seen) > 20
