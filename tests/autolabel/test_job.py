"""The labelling job as a user runs it: bad input, bad scenes, killed processes, equal bytes."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from label_scenes import tree
from s3_server import remote_tree, upload
from small_city import write_small_city

from autolabel.cluster.driver import run_job
from autolabel.cluster.events import Events
from autolabel.cluster.worker import Job
from autolabel.confidence.calibration import Calibration
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.store_header import store_header
from datasets.cli.launch import launch
from datasets.errors import SetupError, UnwritableError
from datasets.files.seals import DIGEST, sealed
from datasets.frames import Scene
from datasets.labels.domain import ConfidenceDomain, LogDomain
from datasets.labels.store import LabelStore
from datasets.sources.nuscenes import NuScenesSource
from datasets.storage.backend import LocalBackend
from models.checkpoints.checkpoint import DOMAIN_KEY, load_checkpoint, save_checkpoint
from models.presets import build

ROOT = Path(__file__).resolve().parents[2]
SCENES = 5
TIMEOUT_S = 300.0
STOPPED_LINE = "stopped; what is done is kept, and the same command continues"


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_city(tmp_path_factory.mktemp("log") / "city", unlabeled=SCENES)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "teacher.safetensors"
    torch.manual_seed(0)
    calibration = json.dumps(Calibration.uncalibrated(18).to_json())
    log = LogDomain(source="city", log="city", licence="", scenes=9, frames=9, reference=None)
    domain = json.dumps(ConfidenceDomain(logs=(log,)).to_json())
    notes = {"calibration": calibration, DOMAIN_KEY: domain}
    save_checkpoint(path, build("city_tiny"), "city_tiny", notes)
    return path


@pytest.fixture(scope="module")
def cluster(bucket: str) -> Iterator[str]:
    """One Ray for all tests of this file that join one; this process is connected to it."""
    ours = [path for path in sys.path if Path(path).is_relative_to(ROOT)]
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(ours)}}  # workers import this file
    context = ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env=environment,
    )
    yield str(context.address_info["gcs_address"])
    ray.shutdown()


def command(city: Path, weights: Path, store: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "autolabel/run.py", "--split", "unlabeled", "--root", str(city)),
        *("--weights", str(weights), "--store", str(store), "--min-confidence", "0.1", *more),
    ]


def start(arguments: list[str], *, address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=os.environ | {"RAY_ADDRESS": address, "MARK": f"autolabel-test-{address}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, out, err


def marked_processes(mark: str = "autolabel-test-local") -> list[str]:
    """Command lines of the processes that a marked command started, whoever's they are now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"MARK={mark}".encode() in path.read_bytes():
                found.append(path.with_name("cmdline").read_text(errors="replace"))
    return found


@pytest.fixture(scope="module")
def undisturbed(city: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of one local run that nothing went wrong in."""
    store = tmp_path_factory.mktemp("undisturbed") / "labels.zarr"
    process = start(command(city, weights, store, "--workers", "1"), address="local")
    code, out, err = finish(process)
    assert code == 0, err
    assert f"labeled {2 * SCENES} frames of {SCENES} scenes" in out
    assert str(store) in out
    assert len(LabelStore.open(store).scene_ids()) == SCENES
    assert not marked_processes()
    return store


def wait_for_scenes(store: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while len(list(store.glob("scenes/*/zarr.json"))) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_and_stopped_job_continues_to_the_bytes_of_an_undisturbed_run(
    city: Path, weights: Path, undisturbed: Path, cluster: str, tmp_path: Path
) -> None:
    store = tmp_path / "labels.zarr"
    arguments = command(city, weights, store)
    process = start(arguments, address=cluster)
    wait_for_scenes(store, 1, process)
    process.kill()
    process.communicate()
    time.sleep(1.0)  # workers of a killed driver end on their own
    done = LabelStore.open(store).scene_ids()
    assert 1 <= len(done) < SCENES, "the kill came too late to show anything"
    inodes = {s: (store / "scenes" / s / "zarr.json").stat().st_ino for s in done}

    process = start(arguments, address=cluster)
    wait_for_scenes(store, len(done) + 1, process)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert (code, err.splitlines()[-1]) == (130, STOPPED_LINE)

    code, out, err = finish(start(arguments, address=cluster))
    assert code == 0, err
    assert "0 scenes quarantined" in out
    assert tree(store) == tree(undisturbed)
    for scene_id, inode in inodes.items():  # nothing was labelled twice
        assert (store / "scenes" / scene_id / "zarr.json").stat().st_ino == inode


@pytest.mark.parametrize(
    ("begun", "sent", "times"),
    [
        ("", signal.SIGTERM, 1),  # imports
        ("ray/gcs/gcs_server", signal.SIGTERM, 2),  # Ray starts
        ("raylet/raylet", signal.SIGINT, 2),
        ("ray::Worker", signal.SIGINT, 1),  # the workers start
    ],
)
def test_job_stopped_while_it_starts_ends_in_a_line_and_leaves_no_process(
    begun: str, sent: signal.Signals, times: int, city: Path, weights: Path, tmp_path: Path
) -> None:
    mark = f"stopped-{tmp_path}"
    process = subprocess.Popen(
        command(city, weights, tmp_path / "labels.zarr", "--address", "local"),
        cwd=ROOT,
        env=os.environ | {"MARK": mark},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + TIMEOUT_S
    if not begun:
        time.sleep(1.0)
    while not any(begun in line for line in marked_processes(mark)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    for _ in range(times):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sent)  # as a terminal does
        time.sleep(0.1)
    code, out, err = finish(process)
    said = [line for line in err.splitlines() if "0 workers" not in line]
    assert (code, out, said) == (130, "", [STOPPED_LINE])
    assert not marked_processes(mark)


def test_killed_job_in_an_object_store_continues_to_the_files_of_a_local_one(
    city: Path, weights: Path, undisturbed: Path, cluster: str, bucket: str
) -> None:
    url, log = f"{bucket}/labels.zarr", f"{bucket}/log"
    upload(city, log)
    names = {"CITY": log, "STORE": url}
    arguments = [names.get(a, a) for a in command(Path("CITY"), weights, Path("STORE"))]
    process = start(arguments, address=cluster)
    deadline = time.monotonic() + TIMEOUT_S
    while not (done := remote_scenes(url)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    assert len(done) < SCENES, "the kill came too late to show anything"
    code, out, err = finish(start(arguments, address=cluster))
    assert code == 0, err
    assert f"store: {url}" in out
    assert wherever_the_log_was(remote_tree(url)) == wherever_the_log_was(tree(undisturbed))


def wherever_the_log_was(files: dict[str, bytes]) -> dict[str, Any]:
    """A store's files; its header, which says where the log was, without that and its digest."""
    header = json.loads(files["zarr.json"])
    attributes = header["attributes"]
    assert attributes["provenance"].pop("root") and attributes.pop(DIGEST)
    return files | {"zarr.json": header}


def remote_scenes(url: str) -> tuple[str, ...]:
    try:
        return LabelStore.open(url).scene_ids()
    except SetupError:
        return ()


def damage(root: Path) -> dict[str, str]:
    """Spoil three scenes of a copied city; scene id -> what the reason must say."""
    source = NuScenesSource(root, past_sweeps=0)
    ids = source.scene_ids("all")
    frames = {s: source.scene(s).frames[1] for s in ids[:3]}
    sweep = frames[ids[0]].lidar
    assert sweep is not None
    rewrite(sweep.path, sweep.path.read_bytes()[:-7])
    picture = frames[ids[1]].cameras[2].path
    rewrite(picture, picture.read_bytes()[:200])
    (table,) = root.glob("v1.0-*/ego_pose.json")
    poses = json.loads(table.read_text())
    stamp = frames[ids[2]].timestamp_us
    keys = json.loads(table.with_name("sample_data.json").read_text())
    token = next(k["ego_pose_token"] for k in keys if k["timestamp"] == stamp and k["is_key_frame"])
    for pose in poses:
        if pose["token"] == token:
            pose["translation"][0] = float("nan")
    rewrite(table, json.dumps(poses).encode())
    return {
        ids[0]: "truncated",
        ids[1]: "picture cannot be decoded",
        ids[2]: "pose is not finite",
    }


def rewrite(path: Path, data: bytes) -> None:
    path.unlink()  # the copy is made of hard links
    path.write_bytes(data)


def test_bad_scenes_are_set_aside_and_the_others_labelled(
    city: Path, weights: Path, undisturbed: Path, cluster: str, tmp_path: Path
) -> None:
    broken, store = tmp_path / "broken", tmp_path / "labels.zarr"
    shutil.copytree(city, broken, copy_function=os.link)
    reasons = damage(broken)
    code, out, err = finish(start(command(broken, weights, store), address=cluster))
    assert code == 1, err
    assert "3 scenes quarantined" in out
    opened = LabelStore.open(store)
    notes = opened.quarantined()
    assert notes.keys() == reasons.keys()
    for scene_id, says in reasons.items():
        assert says in notes[scene_id]["reason"]
        assert "SceneError" in notes[scene_id]["detail"]
        assert f"quarantined: {scene_id}: {notes[scene_id]['reason']}" in out
        assert str(tmp_path) not in notes[scene_id]["reason"]
    good = LabelStore.open(undisturbed).scene_ids()[3:]
    assert opened.scene_ids() == good
    for scene_id in good:
        assert tree(store / "scenes" / scene_id) == tree(undisturbed / "scenes" / scene_id)

    # repaired, the same job fills the gaps and ends with an undisturbed run's bytes
    code, out, err = finish(start(command(city, weights, store), address=cluster))
    assert code == 0, err
    assert "labeled 6 frames of 3 scenes" in out
    assert wherever_the_log_was(tree(store)) == wherever_the_log_was(tree(undisturbed))


def test_scenes_labelled_from_other_files_are_not_taken_for_done(
    city: Path, weights: Path, undisturbed: Path, cluster: str, tmp_path: Path
) -> None:
    changed, store = tmp_path / "city", tmp_path / "labels.zarr"
    shutil.copytree(city, changed)
    shutil.copytree(undisturbed, store)
    picture = next(changed.glob("samples/CAM_FRONT/*.jpg"))
    picture.write_bytes(picture.read_bytes() + b"0")
    code, out, err = finish(start(command(changed, weights, store), address=cluster))
    assert code == 2, out
    assert err.count("\n") == 1 and "from other files" in err
    assert tree(store) == tree(undisturbed)


class DeadlySource(NuScenesSource):
    """Kills its worker, or hangs, when it is asked for some scenes: once, or every time."""

    def __init__(
        self, root: Path, marker: Path, *, once: str = "", always: str = "", hangs: str = ""
    ) -> None:
        super().__init__(root, past_sweeps=9)
        self.marker, self.once, self.always, self.hangs = marker, once, always, hangs

    def scene(self, scene_id: str) -> Scene:
        if scene_id == self.always:
            os._exit(1)
        if scene_id in (self.once, self.hangs) and not self.marker.exists():
            self.marker.touch()
            if scene_id == self.once:
                os._exit(1)
            time.sleep(3600)
        return super().scene(scene_id)


def job_for(
    city: Path, weights: Path, store: Path, source: Callable[..., NuScenesSource], **more: Any
) -> Job:
    teacher, config = load_checkpoint(weights), LabelingConfig(min_confidence=0.1)
    calibration = Calibration.uncalibrated(18)
    licence = NuScenesSource(city, past_sweeps=0).licence
    header = store_header(teacher, calibration, config, source="city", licence=licence)
    LabelStore.create(store, header)
    return Job(
        open_source=source,
        root=city,
        weights=weights,
        store=store,
        run_id=header.run_id,
        calibration=calibration,
        config=config,
        **more,
    )


def test_dead_workers_are_replaced_and_a_scene_that_always_kills_is_set_aside(
    city: Path, weights: Path, undisturbed: Path, cluster: str, tmp_path: Path
) -> None:
    source = NuScenesSource(city, past_sweeps=9)
    ids = source.scene_ids("all")
    once, always = ids[0], ids[2]
    deadly = functools.partial(DeadlySource, city, tmp_path / "died", once=once, always=always)
    job = job_for(city, weights, tmp_path / "labels.zarr", deadly)
    summary = run_job(job, ids, source=source, workers=1)
    assert summary.scenes == SCENES - 1
    assert summary.retries >= 3  # a scene that was beside a deadly one is tried again as well
    assert summary.failures == {always: "worker died"}
    store = LabelStore.open(job.store)
    assert store.quarantined()[always]["reason"] == "worker died"
    for scene_id in store.scene_ids():
        want = LabelStore.open(undisturbed).scene(scene_id).frame(1)
        np.testing.assert_array_equal(store.scene(scene_id).frame(1).mask, want.mask)


def test_a_worker_that_hangs_is_killed_and_its_scene_tried_again(
    city: Path, weights: Path, cluster: str, tmp_path: Path
) -> None:
    source = NuScenesSource(city, past_sweeps=9)
    ids = source.scene_ids("all")
    hangs = functools.partial(DeadlySource, city, tmp_path / "hung", hangs=ids[0])
    job = job_for(city, weights, tmp_path / "labels.zarr", hangs, stall_s=15.0)
    events = Events(tmp_path / "events.jsonl")
    summary = run_job(job, ids[:2], source=source, workers=1, events=events)
    events.close()
    assert (summary.scenes, summary.retries, summary.failures) == (2, 1, {})
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    gone = next(line for line in lines if line["event"] == "worker gone")
    assert gone["scenes"] == [ids[0]] and "no frame finished within 15 s" in gone["reason"]
    assert [line["event"] for line in lines].count("scene done") == 2


def on_a_broken_machine(root: Path) -> NuScenesSource:
    from autolabel.cluster import worker

    def fails(*_: Any) -> None:
        raise MemoryError("the GPU is full")

    worker.warm_up = fails  # in the worker's process
    return NuScenesSource(root, past_sweeps=9)


def test_no_scene_is_blamed_for_a_machine_that_cannot_label(
    city: Path, weights: Path, cluster: str, tmp_path: Path
) -> None:
    broken = functools.partial(on_a_broken_machine, city)
    job = job_for(city, weights, tmp_path / "labels.zarr", broken)
    source = NuScenesSource(city, past_sweeps=9)
    with pytest.raises(SetupError, match=r"a worker died while starting: .*the GPU is full"):
        run_job(job, source.scene_ids("all"), source=source, workers=1)
    store = LabelStore.open(job.store)
    assert store.quarantined() == {} and store.scene_ids() == ()


def on_a_full_disk(root: Path) -> NuScenesSource:
    from datasets.storage import backend as places

    push = places.sync_tree

    def fails(folder: Path) -> None:
        if "labels.zarr" in str(folder):  # a rehearsal's store lies elsewhere
            raise OSError(errno.ENOSPC, "No space left on device")
        push(folder)

    places.sync_tree = fails  # in the worker's process
    return NuScenesSource(root, past_sweeps=9)


def test_a_full_disk_ends_the_job_and_blames_no_scene(
    city: Path, weights: Path, cluster: str, tmp_path: Path
) -> None:
    full = functools.partial(on_a_full_disk, city)
    job = job_for(city, weights, tmp_path / "labels.zarr", full)
    source = NuScenesSource(city, past_sweeps=9)
    with pytest.raises(UnwritableError, match=r"labels\.zarr: .*No space left.* goes on"):
        run_job(job, source.scene_ids("all")[:2], source=source, workers=1)
    store = LabelStore.open(job.store)
    assert store.quarantined() == {} and store.scene_ids() == ()


def test_a_note_that_cannot_be_written_ends_the_job_in_one_line(
    city: Path,
    weights: Path,
    cluster: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = shutil.copytree(city, tmp_path / "city")
    (table,) = root.glob("v1.0-*/scene.json")
    rows = json.loads(table.read_text())
    rows[0]["name"] = "two words"
    table.write_text(json.dumps(rows))
    source = NuScenesSource(root, past_sweeps=9)
    log = functools.partial(NuScenesSource, root, past_sweeps=9)
    job = job_for(root, weights, tmp_path / "labels.zarr", log)
    summary = run_job(job, ["two words"], source=source, workers=1)
    assert "scene id 'two words'" in summary.failures["two words"]
    assert LabelStore.open(job.store).quarantined().keys() == {"two words"}

    def fails(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(LocalBackend, "write", fails)
    with pytest.raises(UnwritableError, match=r"labels\.zarr: .*Read-only"):
        run_job(job, ["two words"], source=source, workers=1)


def test_a_dry_run_says_what_the_job_would_cost_and_leaves_nothing(
    city: Path, weights: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "labels.zarr"
    assert launch("label", [*command(city, weights, store)[2:], "--dry-run", "--workers", "3"]) == 0
    out = capsys.readouterr().out
    assert f"{SCENES} scenes, {2 * SCENES} frames to label" in out
    assert "s with 3 workers" in out and "kB a frame" in out
    assert not list(tmp_path.iterdir())
    assert launch("label", [*command(city, weights, undisturbed)[2:], "--dry-run"]) == 0
    assert "0 scenes, 0 frames to label" in capsys.readouterr().out


def test_what_happened_is_written_beside_the_store(undisturbed: Path) -> None:
    lines = undisturbed.with_name("labels.zarr.events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [e["event"] for e in events if e["event"].startswith("job")] == [
        "job started",
        "job ended",
    ]
    done = [e for e in events if e["event"] == "scene done"]
    assert {e["scene"] for e in done} == set(LabelStore.open(undisturbed).scene_ids())
    assert all(e["frames"] == 2 and e["seconds"] > 0 and e["worker"] for e in done)


Edit = Callable[[Path], None]


def other_version(store: Path) -> None:
    change_header(store, format_version=7)


def other_grid(store: Path) -> None:
    grid = {"min_m": [0.0, 0.0, 0.0], "size_m": [1.0, 1.0, 1.0], "shape": [10, 10, 10]}
    change_header(store, grid=grid)


def other_job(store: Path) -> None:
    change_header(store, run_id="someone else's")


def no_store(store: Path) -> None:
    (store / "zarr.json").unlink()


def change_header(store: Path, **changes: Any) -> None:
    document = json.loads((store / "zarr.json").read_text())
    document["attributes"] = sealed(document["attributes"] | changes)
    (store / "zarr.json").write_text(json.dumps(document))


def assert_refused(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch("label", arguments[2:]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1
    assert err[0].startswith("error: ")
    assert says in err[0]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (other_version, "format version 7, this code reads 1"),
        (other_grid, "its grid is 10x10x10"),
        (other_job, "made by another job"),
        (no_store, "not a label store"),
    ],
)
def test_a_store_that_cannot_be_continued_is_refused_in_one_line(
    edit: Edit,
    says: str,
    city: Path,
    weights: Path,
    undisturbed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = tmp_path / "labels.zarr"
    shutil.copytree(undisturbed, store)
    edit(store)
    before = tree(store)
    assert_refused(command(city, weights, store), says, capsys)
    assert tree(store) == before


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--source", "nuscenes", "--root", "/nowhere"], "/nowhere: no such folder"),
        (["--source", "nuscenes", "--split", "night"], "unknown split 'night'"),
        (["--source", "kitti"], "invalid choice: 'kitti'"),
        (["--weights", "/nowhere.safetensors"], "/nowhere.safetensors: no such weights file"),
        (["--preset", "fusion_r18_occ3d"], "'city_tiny', not of 'fusion_r18_occ3d'"),
        (["--min-confidence", "1.5"], "min_confidence must lie in 0..1"),
        (["--address", "127.0.0.1:9"], "Ray cluster 127.0.0.1:9: cannot be reached"),
        (["--workers", "0"], "--workers must be positive"),
        (["--min-conf", "0.5"], "there is no option --min-conf; did you mean --min-confidence?"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    more: list[str],
    says: str,
    city: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = tmp_path / "labels.zarr"
    assert_refused(command(city, weights, store, *more), says, capsys)
    assert not store.exists() or not LabelStore.open(store).scene_ids()


def test_a_student_labels_only_when_asked_to(
    city: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = tmp_path / "student.safetensors"
    save_checkpoint(student, build("camera_tiny"), "camera_tiny", {})
    options = command(city, student, tmp_path / "labels.zarr")
    assert_refused(options, "weights of camera_tiny, a student without LiDAR", capsys)


def test_the_literal_command_ends_with_code_2_and_one_line() -> None:
    arguments = ["autolabel/run.py", "--source", "nuscenes", "--root", "/nowhere", "--split", "all"]
    code, out, err = finish(start([sys.executable, *arguments, "--weights", "/no"], address=""))
    assert (code, out) == (2, "")
    assert err == "error: /no: no such weights file\n"


def test_a_job_goes_on_when_its_events_cannot_be_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    events = Events(Path("/dev/full"))
    events("job started")
    events("job ended")
    events.close()
    assert capsys.readouterr().err.count("no more events: No space left") == 1
    with pytest.raises(UnwritableError, match="cannot be written"):
        Events(Path("/dev/full/events.jsonl"))
