"""Logs in an object store: the same frames, pictures and points as from a disk."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_log import write_log
from s3_server import upload

from datasets.annotations import AnnotatedSource
from datasets.errors import SceneError, SetupError
from datasets.frames import Frame
from datasets.sources.opening import open_source
from datasets.storage import remote_path as remote_paths
from datasets.storage.backend import as_backend
from datasets.storage.remote_path import RemotePath, StorageError, absolute, fetch, remote_or_local


@pytest.fixture(scope="module")
def logs(bucket: str, city: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of each kind, in a folder; the bucket has them too."""
    folder = write_log(tmp_path_factory.mktemp("logs") / "folder", ("a", "b"))
    found = {"city": city, "folder": folder}
    for kind, root in found.items():
        upload(root, f"{bucket}/{kind}")
    return found


@pytest.fixture(autouse=True)
def _new_process() -> None:
    """What a process has learnt of a bucket is not carried from test to test."""
    remote_paths._listed.cache_clear()


def both(logs: dict[str, Path], bucket: str, kind: str) -> tuple[AnnotatedSource, AnnotatedSource]:
    return (
        open_source(kind, logs[kind], past_sweeps=2, future_sweeps=1),
        open_source(kind, Path(f"{bucket}/{kind}"), past_sweeps=2, future_sweeps=1),
    )


def assert_same_frame(a: Frame, b: Frame, local: AnnotatedSource, remote: AnnotatedSource) -> None:
    assert (a.token, a.timestamp_us) == (b.token, b.timestamp_us)
    assert [v.name for v in a.cameras] == [v.name for v in b.cameras]
    for v, w in zip(a.cameras, b.cameras, strict=True):
        assert isinstance(w.path, RemotePath) and str(w.path).startswith("s3://labels/")
        assert (v.T_ego_camera == w.T_ego_camera).all()
        assert (local.read_image(v) == remote.read_image(w)).all()
    assert a.lidar and b.lidar
    sweeps = zip((a.lidar, *a.past_sweeps), (b.lidar, *b.past_sweeps), strict=True)
    for s, t in sweeps:
        assert (local.read_points(s) == remote.read_points(t)).all()
    x, y = local.annotations(a), remote.annotations(b)
    assert [box.track for box in x.boxes] == [box.track for box in y.boxes]
    assert np.array_equal(x.point_classes, y.point_classes)


@pytest.mark.parametrize("kind", ["city", "folder"])
def test_a_remote_log_is_the_local_one(logs: dict[str, Path], bucket: str, kind: str) -> None:
    local, remote = both(logs, bucket, kind)
    assert local.scene_ids("all") == remote.scene_ids("all")
    assert local.scene_ids("unlabeled") == remote.scene_ids("unlabeled")
    for scene_id in local.scene_ids("all"):
        assert local.n_frames(scene_id) == remote.n_frames(scene_id)
        assert local.fingerprint(scene_id) == remote.fingerprint(scene_id)
        pairs = zip(local.scene(scene_id).frames, remote.scene(scene_id).frames, strict=True)
        for a, b in pairs:
            assert len(a.past_sweeps) == len(b.past_sweeps)
            assert_same_frame(a, b, local, remote)
    again = pickle.loads(pickle.dumps(remote))  # as a worker gets it
    frame = again.scene(local.scene_ids("all")[0]).frames[0]
    assert frame.lidar and len(again.read_points(frame.lidar))


@pytest.mark.parametrize("form", ["tfrecord", "parquet"])
def test_a_remote_waymo_log_is_the_local_one(bucket: str, tmp_path: Path, form: str) -> None:
    pytest.importorskip("waymo_open_dataset")
    import waymo_log

    written = waymo_log.segment()
    if form == "tfrecord":
        waymo_log.write_records(tmp_path / "waymo" / "training" / "segment-s.tfrecord", written)
    else:
        waymo_log.write_components(tmp_path / "waymo" / "training", written)
    upload(tmp_path / "waymo", f"{bucket}/waymo-{form}")
    local = open_source("waymo", tmp_path / "waymo", past_sweeps=1)
    remote = open_source("waymo", Path(f"{bucket}/waymo-{form}"), past_sweeps=1)
    (scene_id,) = remote.scene_ids("all")
    assert local.n_frames(scene_id) == remote.n_frames(scene_id) > 1
    assert local.fingerprint(scene_id) == remote.fingerprint(scene_id)
    for a, b in zip(local.scene(scene_id).frames, remote.scene(scene_id).frames, strict=True):
        assert_same_frame(a, b, local, remote)


def test_what_is_damaged_or_missing_is_said_by_its_url(
    logs: dict[str, Path], bucket: str, tmp_path: Path
) -> None:
    shutil.copytree(logs["folder"], tmp_path / "bad")
    scene = tmp_path / "bad" / "scenes" / "a"
    (scene / "lidar" / "000.npz").unlink()
    (scene / "front" / "000.png").write_bytes(b"torn")
    upload(tmp_path, bucket)
    source = open_source("folder", Path(f"{bucket}/bad"), past_sweeps=0)
    frame = source.scene("a").frames[0]
    assert frame.lidar
    url = f"{bucket}/bad/scenes/a"
    with pytest.raises(SceneError, match=f"{url}/lidar/000.npz: cannot be read"):
        source.read_points(frame.lidar)
    with pytest.raises(SceneError, match=f"{url}/front/000.png: picture cannot be decoded"):
        source.read_image(frame.cameras[0])
    with pytest.raises(SetupError, match=r"s3://labels/none: no log\.json"):
        open_source("folder", Path(f"{bucket}/none"), past_sweeps=0)
    with pytest.raises(SetupError, match="made on a disk only"):
        open_source("city", Path(f"{bucket}/none"), past_sweeps=0)


def test_a_store_that_does_not_answer_is_no_fault_of_the_data(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise remote_paths.obstore.exceptions.PermissionDeniedError("no")

    monkeypatch.setattr(remote_paths.obstore, "get", refuse)
    with pytest.raises(StorageError):
        RemotePath(f"{bucket}/folder/log.json").read_bytes()
    with pytest.raises(StorageError):
        os.fspath(RemotePath(f"{bucket}/folder/other.json"))


def test_no_copy_is_written_outside_its_folder(bucket: str) -> None:
    with pytest.raises(OSError, match="leads out of its folder"):
        os.fspath(RemotePath(f"{bucket}/folder/../../../../x"))
    copies = remote_paths._Copies()
    with pytest.raises(FileNotFoundError):
        copies.fetched(bucket, "folder/none")
    assert not [p for p in copies.folder.rglob("*") if p.is_file()]  # nor is half a one left
    copies.remove()


def test_files_are_fetched_many_at_a_time(
    logs: dict[str, Path], bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote_paths.forget_copies()
    _, remote = both(logs, bucket, "folder")
    frame = remote.scene("a").frames[1]
    assert frame.lidar
    sweeps = (frame.lidar, *frame.past_sweeps)
    together = threading.Barrier(len(sweeps), timeout=20)
    get = remote_paths.obstore.get

    def waits(*args: Any, **more: Any) -> Any:
        together.wait()
        return get(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(remote_paths.obstore, "get", waits)
        fetch([*(s.path for s in sweeps), RemotePath(f"{bucket}/none"), Path("/no/such/file")])
    monkeypatch.setattr(remote_paths.obstore, "get", None)
    for sweep in sweeps:
        assert len(remote.read_points(sweep))
    monkeypatch.setattr(remote_paths, "STREAMED_BYTES", 10)
    fetch([RemotePath(f"{bucket}/folder/log.json")])  # too large: asks for nothing


def test_paths(logs: dict[str, Path], bucket: str) -> None:
    root = remote_or_local(Path(f"{bucket}/folder"))
    assert isinstance(root, RemotePath) and str(root) == f"{bucket}/folder"
    with pytest.raises(SetupError, match="names no bucket"):
        remote_or_local(Path("s3://"))
    assert remote_or_local(Path("s3/folder")) == Path("s3/folder")
    assert absolute(Path("x")) == Path.cwd() / "x" and absolute(root) == root
    assert str(root / "a" / "b.txt") == f"{bucket}/folder/a/b.txt"
    assert str(root.parent) == bucket and (root / "a.txt").suffix == ".txt"
    assert pickle.loads(pickle.dumps(root)) == root
    assert root.is_dir() and not root.is_file() and root.exists()
    assert remote_or_local(Path(bucket)).is_dir()
    log = root / "log.json"
    assert log.is_file() and not log.is_dir()
    assert log.stat().st_size == (logs["folder"] / "log.json").stat().st_size
    assert log.read_text() == (logs["folder"] / "log.json").read_text()
    assert [p.name for p in root.iterdir()] == ["log.json", "scenes"]
    assert [p.parent.name for p in root.glob("scenes/*/scene.json")] == ["a", "b"]
    assert [p.name for p in root.glob("*.json")] == ["log.json"]
    assert not list(root.glob("none/*"))
    for name in ("log", "log.jsom", "log.json2", "zz", "scenes/a/lidar/0001.npz"):
        assert not (root / name).exists()
    with pytest.raises(FileNotFoundError, match="no such object"):
        (root / "none").stat()
    with pytest.raises(FileNotFoundError, match="no such object"):
        (root / "none").open("rb")
    with pytest.raises(OSError, match="only read"):
        log.open("w")


def test_sizes_come_by_the_page(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"pages/{i:03d}" for i in range(60)]
    for i, name in enumerate(names):
        as_backend(bucket).write(name, bytes(i))
    monkeypatch.setattr(remote_paths, "PAGE", 25)
    monkeypatch.setattr(remote_paths, "PAGES", 3)
    listing, asked = remote_paths._Listing(bucket), []
    read = listing._read
    monkeypatch.setattr(listing, "_read", lambda key: asked.append(key) or read(key))
    assert [listing.size(name) for name in names] == list(range(60))
    assert len(asked) <= 4
    order = np.random.default_rng(0).permutation(60)
    assert [listing.size(names[i]) for i in order] == order.tolist()
    assert len(listing.pages) <= 3
    assert listing.size("pages/0") is listing.size("pages/060") is listing.size("page") is None
    as_backend(bucket).write("pages/060", bytes(60))
    assert listing.size("pages/060") is None
    monkeypatch.setattr(remote_paths, "FRESH_S", 0.0)
    assert listing.size("pages/060") == 60


def test_large_files_are_read_where_they_lie(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(0).bytes(1 << 20)
    as_backend(bucket).write("large/file.bin", data)
    monkeypatch.setattr(remote_paths, "STREAMED_BYTES", 1000)
    monkeypatch.setattr(remote_paths, "_copies", None)
    with RemotePath(f"{bucket}/large/file.bin").open("rb") as file:
        assert file.read(12) == data[:12]
        file.seek(700_000)
        assert file.read(300_000) == data[700_000:1_000_000]
        file.seek(-5, os.SEEK_END)
        assert file.read() == data[-5:]


def test_copies_make_room_and_go_with_their_process(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for i in range(8):
        as_backend(bucket).write(f"room/{i}", bytes(100))
    monkeypatch.setattr(remote_paths, "COPIES_BYTES", 350)
    monkeypatch.setattr(remote_paths, "COPIES_KEPT", 2)
    monkeypatch.setattr(remote_paths.tempfile, "tempdir", str(tmp_path))
    copies = remote_paths._Copies()
    for i in (0, 1, 2, 0, 3, 4):
        assert copies.fetched(bucket, f"room/{i}").read_bytes() == bytes(100)
    kept = sorted(p.name for p in copies.place(bucket, "room").iterdir())
    assert kept == ["0", "3", "4"] and copies.bytes == 300
    assert copies.fetched(bucket, "room/1").is_file()
    monkeypatch.setattr(remote_paths.tempfile, "tempdir", str(tmp_path / "more"))
    (tmp_path / "more").mkdir()
    remote_paths._made.cache_clear()
    assert RemotePath(f"{bucket}/room/2").exists() and not any((tmp_path / "more").iterdir())
    os.fspath(RemotePath(f"{bucket}/room/2"))
    assert any((tmp_path / "more").iterdir())
    remote_paths.forget_copies()
    assert not any((tmp_path / "more").iterdir())
    (tmp_path / "more").rmdir()
    monkeypatch.setattr(remote_paths.tempfile, "tempdir", str(tmp_path))
    # a process that was killed leaves a folder; the next one removes it, and no living one's
    code = "import os, sys, tempfile; tempfile.mkdtemp(prefix=f'autolabel-log-{os.getpid()}-')"
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert len(list(tmp_path.iterdir())) == 2
    remote_paths._sweep()
    assert list(tmp_path.iterdir()) == [copies.folder]
