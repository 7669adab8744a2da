"""A log that confidence was not calibrated on gets no promise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from command_line import run_script
from folder_log import write_log

from autolabel.commands.options.label_log import DEFAULT_WEIGHTS, parse, shares
from autolabel.confidence.held_out_sweeps import HELD_OUT_SWEEPS
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import write_labels
from autolabel.labeling.store_header import store_header
from autolabel.labeling.stored_calibration import calibration_of, domain_of
from datasets.benchmarks import NAMES
from datasets.errors import SetupError
from datasets.labels.lidar_check import LidarEvidence, evidence_of
from datasets.labels.store import LabelStore
from datasets.labels.validity import DOMAIN_KEY, LOG_KEY, validity_of
from datasets.reviews.entries import Verdict, VerdictEntry
from datasets.reviews.overlay import Reviews
from datasets.sources.opening import open_source
from models.checkpoints.checkpoint import load_checkpoint
from models.inference.predictor import OccupancyPredictor


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "mine")


def test_an_error_bound_is_refused_before_anything_is_labeled(log: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    words = ("--source", "folder", "--root", log, "--split", "all", "--store", store)
    done = run_script("autolabel/run.py", *words, "--max-error", "0.05")
    assert done.returncode == 2 and done.stdout == ""
    assert "confidence is not verified on this log" in done.stderr
    assert "--adapt" in done.stderr and "--accept-unverified" in done.stderr
    assert not store.exists()


def test_the_thresholds_can_be_had_without_a_promise(log: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    words = ("--source", "folder", "--root", log, "--split", "all", "--store", store)
    more = ("--max-error", "0.2", "--accept-unverified", "--dry-run")
    done = run_script("autolabel/run.py", *words, *more)
    assert done.returncode == 0, done.stderr
    assert "no bound on errors holds" in done.stderr and "error bound" not in done.stdout
    unknown = ("--max-error", "0.2,boats=0.1", "--accept-unverified")
    done = run_script("autolabel/run.py", *words, *unknown)
    assert done.returncode == 2 and "no group 'boats'" in done.stderr


@pytest.fixture(scope="module")
def labeled(city: Path, tmp_path_factory: pytest.TempPathFactory) -> LabelStore:
    """The small city labeled by the shipped teacher, as a job does it."""
    model = load_checkpoint(DEFAULT_WEIGHTS)
    teacher = OccupancyPredictor(model.module, model.preset)
    calibration, domain = calibration_of(model, DEFAULT_WEIGHTS), domain_of(model, DEFAULT_WEIGHTS)
    assert domain is not None
    source = open_source(
        "city", city, past_sweeps=model.preset.inputs.past_sweeps, future_sweeps=HELD_OUT_SWEEPS
    )
    config = LabelingConfig()
    made = store_header(model, calibration, config, source="city", licence=source.licence)
    log = {LOG_KEY: source.name, DOMAIN_KEY: domain.to_json(), "root": str(city)}
    header = replace(made, provenance=made.provenance | log)
    store = LabelStore.create(tmp_path_factory.mktemp("labels") / "s.zarr", header)
    scene = source.scene(source.scene_ids("all")[0])
    write_labels(store, scene, source, teacher, calibration, config)
    return store


def test_a_job_asks_held_out_sweeps_about_its_labels(labeled: LabelStore) -> None:
    (attributes,) = labeled.committed().values()
    evidence = evidence_of(attributes)
    assert isinstance(evidence, LidarEvidence) and evidence.frames == 2
    assert 0 < evidence.counts.sum() <= attributes["counts"]["trusted"]
    assert 0 < evidence.claimed.sum() < evidence.counts.sum()
    verdict = validity_of(labeled)
    assert verdict.lidar is not None and verdict.lidar.low is not None
    # its pictures are smaller and its scenes shorter than those of the calibration
    assert verdict.shift is not None and verdict.shift.scenes == 1


def test_every_place_says_whether_confidence_holds(labeled: LabelStore, tmp_path: Path) -> None:
    place = str(labeled.place)
    verdict = validity_of(labeled)
    told = run_script("scripts/store.py", "info", place)
    assert told.returncode == 0, told.stderr
    assert verdict.to_text().split("\n")[0] in told.stdout and "LiDAR check" in told.stdout
    out = tmp_path / "out"
    done = run_script("scripts/store.py", "export", place, "--format", NAMES[0], "--out", out)
    assert done.returncode == 0, done.stderr
    card = (out / "CARD.md").read_text()
    assert verdict.to_text().split("\n")[0] in card and "CC0" in card


def test_a_reviewed_store_adapts_the_weights_to_its_log(
    labeled: LabelStore, tmp_path: Path
) -> None:
    (scene_id,) = labeled.scene_ids()
    out, reviews = tmp_path / "a.safetensors", Reviews(labeled)
    words = (DEFAULT_WEIGHTS, "--adapt", labeled.place, "-o", out)
    done = run_script("scripts/calibrate.py", *words)
    assert done.returncode == 2 and "no frame is accepted" in done.stderr
    tokens = labeled.scene(scene_id).frame_tokens
    for token, verdict in zip(tokens, (Verdict.ACCEPT, Verdict.REJECT), strict=False):
        reviews.add(
            VerdictEntry(scene_id=scene_id, tokens=(token,), verdict=verdict), reviewer="me"
        )
    done = run_script("scripts/calibrate.py", *words)
    assert done.returncode == 0, done.stderr
    assert "adapted to city by 2 frames of 1 scenes" in done.stdout
    assert "2 calibration frames are too few, at least" in done.stdout
    domain = domain_of(load_checkpoint(out), out)
    assert domain is not None and domain.lidar is not None
    assert [(log.source, log.frames) for log in domain.logs] == [("city", 2)]


def test_fingerprints_do_not_depend_on_held_out_sweeps(city: Path) -> None:
    plain, more = (open_source("city", city, past_sweeps=2, future_sweeps=n) for n in (0, 5))
    scene_id = plain.scene_ids("all")[0]
    assert more.scene(scene_id).frames[0].future_sweeps
    assert plain.fingerprint(scene_id) == more.fingerprint(scene_id)


def test_shares_by_group() -> None:
    assert shares("0.02") == {"every": 0.02}
    assert shares("0.02, vehicles=0.1") == {"every": 0.02, "vehicles": 0.1}
    for bad in ("", "vehicles", "0.1,0.2", "vehicles=x"):
        with pytest.raises((SetupError, Exception), match=r"share|twice"):
            shares(bad)
    with pytest.raises(SetupError, match="between 0 and 1"):
        parse(["--split", "all", "--max-error", "0.1,vehicles=1.5"])
    with pytest.raises(SetupError, match="goes with --max-error"):
        parse(["--split", "all", "--accept-unverified"])
