"""Label stores in an object store: a local S3 server, real requests."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import get_args

import pytest
from faulty_places import Fault, FaultyPlace, Writes
from label_scenes import assert_equal, header, scene, tree
from s3_server import Fault as ProxyFault
from s3_server import Proxy, remote_tree, upload

from datasets.errors import AutolabelError, SetupError, UnreadableError, UnwritableError
from datasets.labels.store import LabelStore
from datasets.storage import backend
from datasets.storage.backend import LocalBackend, ObjectStoreBackend, as_backend
from datasets.store_ops.maintenance import prune

ROOT = Path(__file__).resolve().parents[3]


def test_a_remote_store_has_the_files_of_a_local_one(bucket: str, tmp_path: Path) -> None:
    url = f"{bucket}/same/labels.zarr"
    for where in (url, tmp_path / "labels.zarr"):
        store = LabelStore.open_or_create(where, header(flow=True))
        for i in range(2):
            store.write_scene(scene(f"s{i}", seed=i, flow=True, evidence=True))
        store.quarantine("s9", "bad", "trace")
    assert remote_tree(url) == tree(tmp_path / "labels.zarr")
    again = LabelStore.open(url)
    assert again.scene_ids() == ("s0", "s1")
    assert again.quarantined() == {"s9": {"reason": "bad", "detail": "trace"}}
    stored = again.scene("s1")
    stored.verify()
    assert_equal(stored, scene("s1", seed=1, flow=True, evidence=True))
    again.write_scene(scene("s9", flow=True))
    assert again.quarantined() == {}


def test_only_a_commit_marker_makes_a_remote_scene_visible(bucket: str) -> None:
    store = LabelStore.create(f"{bucket}/half", header())
    with pytest.raises(RuntimeError), store.writer("s1", 3) as writer:
        for frame in scene("s1").frames():
            writer.append(frame)
        raise RuntimeError
    assert isinstance(store.place, ObjectStoreBackend)
    assert store.place.files("scenes/s1")  # its arrays are there already
    assert store.scene_ids() == () and "s1" not in store
    store.write_scene(scene("s1", seed=3))
    assert_equal(store.scene("s1"), scene("s1", seed=3))


def test_what_a_killed_remote_writer_of_other_files_left_is_not_mixed_in(
    bucket: str, tmp_path: Path
) -> None:
    store = LabelStore.create(f"{bucket}/other-files", header())
    with pytest.raises(RuntimeError), store.writer("s1", 5) as writer:
        for frame in scene("s1", frames=5).frames():
            writer.append(frame)
        raise RuntimeError
    store.write_scene(scene("s1"))
    LabelStore.create(tmp_path / "local", header()).write_scene(scene("s1"))
    assert remote_tree(f"{bucket}/other-files") == tree(tmp_path / "local")


def test_the_first_remote_commit_stays(bucket: str) -> None:
    store = LabelStore.create(f"{bucket}/first", header())
    with store.writer("s1", 3) as late:  # it began before the other one was done
        for frame in scene("s1").frames():
            late.append(frame)
        store.write_scene(scene("s1"))
        before = remote_tree(f"{bucket}/first")
    assert remote_tree(f"{bucket}/first") == before


def test_what_is_no_remote_store_is_named(bucket: str) -> None:
    with pytest.raises(SetupError, match=r"s3://labels/nowhere: there is nothing of that name"):
        LabelStore.open(f"{bucket}/nowhere")
    as_backend(f"{bucket}/other").write("readme.txt", b"hello")
    with pytest.raises(SetupError, match=r"it has no zarr\.json"):
        LabelStore.open(f"{bucket}/other")
    with pytest.raises(SetupError, match="something else is there"):
        LabelStore.create(f"{bucket}/other", header())
    with pytest.raises(SetupError, match="nonsense://x"):
        LabelStore.open("nonsense://x")
    with pytest.raises(SetupError, match="s3://absent-bucket/labels"):
        LabelStore.open("s3://absent-bucket/labels")


@pytest.mark.parametrize("fault", get_args(ProxyFault))
def test_a_bad_proxy_takes_nothing_away_and_makes_nothing_up(
    bucket: str, tmp_path: Path, fault: ProxyFault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fault at every second request; ``chaos.py --proxy`` does so at length."""
    soon = timedelta(milliseconds=10)  # between tries
    backoff = {"init_backoff": soon, "max_backoff": 2 * soon, "base": 2}
    monkeypatch.setattr(
        backend, "from_url", partial(backend.from_url, retry_config={"backoff": backoff})
    )
    LabelStore.create(tmp_path / "whole", header()).write_scene(scene("s1"))
    whole, name = tree(tmp_path / "whole"), fault.replace(" ", "-")
    proxy = Proxy(os.environ["AWS_ENDPOINT"], random.Random(1))
    proxy.faults = (fault,)
    with proxy.serving():
        url = f"{bucket}/proxy-{name}"
        upload(tmp_path / "whole", url)

        def write() -> None:
            LabelStore.open_or_create(f"{url}-new", header()).write_scene(scene("s1"))

        def read() -> None:
            opened = LabelStore.open(url)
            assert opened.scene_ids() == ("s1",)
            assert_equal(opened.scene("s1"), scene("s1"))

        for do in (read, lambda: prune(LabelStore.open(url)), write):
            proxy.rate = 0.5
            with suppress(AutolabelError, OSError):
                do()
            proxy.rate = 0.0
            do()
        assert proxy.done[fault] or proxy.done["503"]
        assert remote_tree(url) == whole == remote_tree(f"{url}-new")


@pytest.mark.parametrize("times", [1, 2])
def test_a_scene_that_is_listed_is_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    store.write_scene(scene("s1"))
    read, asked = LocalBackend.read, []

    def absent(place: LocalBackend, key: str) -> bytes:
        if key == "scenes/s1/zarr.json" and len(asked) < times:
            asked.append(key)
            raise FileNotFoundError(key)
        return read(place, key)

    monkeypatch.setattr(LocalBackend, "read", absent)
    if times == 1:  # committed between the two
        assert "s1" in store
    else:
        with pytest.raises(UnreadableError, match="listed, and not to be read"):
            store.scene("s1")
    with pytest.raises(KeyError):
        store.scene("s2")


def test_a_refused_write_names_the_store_and_lasts(bucket: str) -> None:
    proxy = Proxy(os.environ["AWS_ENDPOINT"], random.Random(1))
    proxy.faults, url = ("403",), f"{bucket}/refused"
    with proxy.serving():
        store = LabelStore.create(url, header())
        with (
            pytest.raises(UnwritableError, match=f"{url}: cannot be written"),
            store.writer("s1", 3) as writer,
        ):
            proxy.rate = 1.0
            for frame in scene("s1").frames():
                writer.append(frame)
        proxy.rate = 0.0
        assert store.scene_ids() == ()


@pytest.mark.parametrize("fault", ["fails", "is short"])
def test_a_remote_writer_that_fails_anywhere_leaves_nothing_that_is_seen(
    bucket: str, tmp_path: Path, fault: Fault
) -> None:
    LabelStore.create(tmp_path / "whole", header()).write_scene(scene("s1"))
    counted = FaultyPlace(as_backend(f"{bucket}/counted-{fault}"))
    LabelStore.create(counted, header()).write_scene(scene("s1"))
    assert counted.writes.count > 8
    for at in range(counted.writes.count):
        url = f"{bucket}/{fault}-{at}"
        store = LabelStore.create(FaultyPlace(as_backend(url), Writes(at, fault)), header())
        with pytest.raises(OSError, match=r"space|output"):
            store.write_scene(scene("s1"))
        assert LabelStore.open(url).scene_ids() == ()
        LabelStore.open(url).write_scene(scene("s1"))
        assert remote_tree(url) == tree(tmp_path / "whole")


WRITE_FOREVER = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from faulty_places import Fault, FaultyPlace, Writes
from label_scenes import header, scene
from datasets.labels.store import LabelStore
store = LabelStore.open_or_create({url!r}, header())
print("ready", flush=True)
for i in range(10**6):
    store.write_scene(scene(f"s{{i:06d}}", frames=6, seed=i))
"""


def test_a_killed_remote_writer_leaves_whole_scenes(bucket: str) -> None:
    url = f"{bucket}/killed"
    code = WRITE_FOREVER.format(root=str(ROOT), tests=str(ROOT / "tests" / "helpers"), url=url)
    for attempt in range(3):
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert writer.stdout is not None and writer.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 60
        while len(LabelStore.open(url).scene_ids()) < 2 * (attempt + 1):
            assert time.monotonic() < deadline and writer.poll() is None
            time.sleep(0.01)
        os.kill(writer.pid, 9)
        writer.wait()
        writer.stdout.close()
        store = LabelStore.open(url)
        for scene_id in store.scene_ids():
            stored = store.scene(scene_id)
            stored.verify()
            assert_equal(stored, scene(scene_id, frames=6, seed=int(scene_id[1:])))
