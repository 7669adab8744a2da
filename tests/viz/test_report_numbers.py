"""What the numbers of a report promise: they are what a direct count gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from report_stores import (
    FREE,
    GRID,
    LEVELS,
    OBSERVED,
    SCENES,
    Cells,
    N,
    header,
    make_store,
    provenance,
    report,
)

from datasets.benchmarks.catalogue import Benchmark
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.errors import SceneError
from datasets.labels.calibration_record import stored_calibration
from datasets.labels.store import LabelStore, MaskBit
from datasets.metrics.calibration import calibration_error, risk_coverage
from datasets.taxonomy import IGNORE_ID, OCC3D_NUSCENES
from viz.html_report.store_statistics import RINGS, TruthFolder, store_numbers


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "labels.zarr")


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
            trusted = here & ids & voxels["trusted"]
            wrong = (1 - np.asarray(LEVELS)[voxels["level"][trusted]]).mean()
            expected = float(row[f"Expected wrong of {title}"][:-2])
            assert expected == pytest.approx(100 * wrong, abs=0.06)


def test_numbers_stream_to_the_same_sums(store: Path) -> None:
    numbers, voxels = store_numbers(LabelStore.open(store)), observed_voxels()
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

    def read(path: Path) -> GroundTruth:
        try:
            with np.load(path, allow_pickle=False) as found:
                true, scored = found["true"], found["scored"]
        except ValueError as error:
            raise SceneError(where=str(path), rule="not a label file") from error
        return GroundTruth(grid=GRID, taxonomy=OCC3D_NUSCENES, semantics=true, mask_camera=scored)

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


def test_measured_errors_equal_a_direct_comparison(store: Path, tmp_path: Path) -> None:
    numbers = store_numbers(LabelStore.open(store), truth_folder(tmp_path))
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
    store: Path, tmp_path: Path
) -> None:
    truth = truth_folder(tmp_path, lacks="scene-b")
    (tmp_path / "scene-a-1.npz").write_text("no truth")
    numbers = store_numbers(LabelStore.open(store), truth)
    assert list(numbers.truth_damaged) == ["scene-a"]
    assert "scene-a-1.npz" in numbers.truth_damaged["scene-a"]
    assert len(numbers.scenes) == 2 and numbers.scenes[1].scored == 0
    assert np.isnan(numbers.scenes[0].wrong[1]) and np.isfinite(numbers.scenes[0].wrong[0])


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"method": "class"}, "class"),
        ({"method": "class", "meta": {}}, "meta classifier, class"),
        ({"method": "softmax", "meta": {}}, "meta classifier"),
        ({"method": "softmax", "counts": [0]}, "softmax at its word"),
    ],
)
def test_the_report_says_whose_verdict_confidence_is(found: dict[str, object], told: str) -> None:
    calibration = stored_calibration(header(provenance={"calibration": {"counts": [9]} | found}))
    assert calibration is not None and calibration.method == told


def test_objects_are_counted_by_their_class_and_frames(tmp_path: Path) -> None:
    car, person = (OCC3D_NUSCENES.id_of(name) for name in ("car", "pedestrian"))
    scene = SCENES[0]
    semantics = np.full_like(scene.semantics, FREE)
    instances = np.zeros(semantics.shape, np.uint16)
    semantics[:, 3:6, 3:6, 1], instances[:, 3:6, 3:6, 1] = car, 1
    semantics[1, 3, 3, 1] = person  # one voxel of the car
    semantics[:2, 20, 20, 1], instances[:2, 20, 20, 1] = person, 2
    semantics[2, 30, 30, 1], instances[2, 30, 30, 1] = person, 3
    store = LabelStore.create(tmp_path / "labels.zarr", header())
    store.write_scene(replace(scene, semantics=semantics, instances=instances))
    cells = Cells(report(tmp_path / "labels.zarr"))
    row = cells.row("Objects per class", "car")
    assert (row["Objects"], row["A frame"], row["Frames of an object"]) == ("1", "1.00", "3")
    row = cells.row("Objects per class", "pedestrian")
    assert (row["Objects"], row["A frame"], row["Frames of an object"]) == ("2", "1.00", "1.5")
    assert row["In one frame only"] == "50.0 %"


def test_a_store_without_objects_has_no_section_of_them(store: Path) -> None:
    assert "Objects per class" not in report(store)
