"""Every example runs as its docstring says, on a small city and on labels of it."""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autolabel.labeling import LabelingConfig, calibration_of, store_header, write_labels
from datasets.labels import LabelStore
from datasets.reviews import Reviews, Verdict
from datasets.sources.opening import open_source
from models.checkpoints import load_checkpoint
from models.inference import OccupancyPredictor

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "scripts" / "examples"
WEIGHTS = ROOT / "models" / "weights" / "city_small_teacher.safetensors"
FRAMES = 3
Run = Callable[..., str]


@pytest.fixture(scope="module")
def store(city: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped teacher's labels of the city."""
    path = tmp_path_factory.mktemp("labels") / "labels.zarr"
    model, config = load_checkpoint(WEIGHTS), LabelingConfig()
    calibration = calibration_of(model, WEIGHTS)
    source = open_source("city", city, past_sweeps=model.preset.inputs.past_sweeps)
    header = store_header(model, calibration, config, source="city", licence=source.licence)
    labels = LabelStore.create(path, header)
    teacher = OccupancyPredictor(model.module, model.preset)
    for scene_id in source.scene_ids("unlabeled"):
        write_labels(labels, source.scene(scene_id), source, teacher, calibration, config)
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs an example as a command and gives what it prints."""

    def run_example(name: str, *arguments: object) -> str:
        path = EXAMPLES / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        runpy.run_path(str(path), run_name="__main__")
        return capsys.readouterr().out

    return run_example


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_states_its_command(path: Path) -> None:
    assert f"python scripts/examples/{path.name}" in path.read_text().split('"""')[1]


def test_a_scene_is_labelled(run: Run, city: Path) -> None:
    printed = run("label_scene", city)
    assert f"scene-4001: {FRAMES} frames" in printed
    counts = dict(line.rsplit(maxsplit=1) for line in printed.splitlines()[1:])
    assert len(counts) == 18 and int(counts["free"].replace(",", "")) > 1000


def test_a_store_is_a_torch_data_set(run: Run, store: Path) -> None:
    printed = run("torch_dataset", store, 0)
    assert printed.startswith("batch (2, 200, 200, 16): ")
    assert not printed.endswith(" 0.0% of the voxels trusted\n")


def test_a_log_of_ones_own_is_labelled(run: Run) -> None:
    printed = run("own_source")
    assert printed.startswith("drive-1: 1 frame labeled, ")
    assert int(printed.split(", ", 1)[1].split()[0].replace(",", "")) > 1000


def test_a_student_is_trained_on_a_store(run: Run, store: Path, city: Path, tmp_path: Path) -> None:
    printed = run("train_on_store", store, city, tmp_path, 1)
    assert printed.startswith(f"1 steps on {FRAMES} frames")
    assert load_checkpoint(tmp_path / "student.safetensors").preset.name == "camera_tiny"


def test_the_first_frame_of_the_queue_gets_a_verdict(run: Run, store: Path, tmp_path: Path) -> None:
    reviewed = Path(shutil.copytree(store, tmp_path / "reviewed.zarr"))
    printed = run("review_queue", reviewed, "Ada")
    scene_id, _, k, *_ = printed.split()
    labels = LabelStore.open(reviewed)
    verdicts = Reviews(labels).verdicts(scene_id)
    assert list(verdicts) == [labels.scene(scene_id).frame_tokens[int(k)]]
    assert [verdict.verdict for verdict in verdicts.values()] == [Verdict.REJECT]
    assert f"{FRAMES - 1} frames are left to review; 1 frames rejected" in printed
