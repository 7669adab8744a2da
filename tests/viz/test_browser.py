"""What review in a browser promises: who can connect, what a tab does, where verdicts go."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from datasets.errors import SetupError
from datasets.geometry.grid import VoxelGrid
from datasets.labels.label_set import StoredLabels
from datasets.labels.store import LabelStore, MaskBit, SceneLabels, StoreHeader
from datasets.reviews.overlay import Reviews, Verdict, VerdictEntry
from datasets.taxonomy import OCC3D_NUSCENES
from viz.browser.server import serving
from viz.render.layers import LayerSettings
from viz.review.review_queue import QueueItem
from viz.session.session import ReviewSession

pytest.importorskip("viser", reason="the extra 'browser' is not installed")

from browser_client import Tab
from chromium import chromium

REPOSITORY = Path(__file__).resolve().parents[2]
GRID = VoxelGrid(min_m=(-10.0, -10.0, -1.0), size_m=(0.5, 0.5, 0.5), shape=(40, 40, 8))
FREE = OCC3D_NUSCENES.free_id
CAR, ROAD = OCC3D_NUSCENES.id_of("car"), OCC3D_NUSCENES.id_of("driveable_surface")
TOKENS = {"scene-a": ("first", "second", "third"), "scene-b": ("other", "last")}


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    header = StoreHeader(
        grid=GRID,
        taxonomy=OCC3D_NUSCENES,
        levels=(0.0, 0.5, 1.0),
        licence="none",
        provenance={},
        run_id="test",
    )
    made = LabelStore.create(tmp_path / "labels.zarr", header)
    street = np.full(GRID.shape, FREE, np.uint8)
    street[:, :, 1] = ROAD
    street[26:32, 18:22, 2:5] = CAR
    for scene_id, tokens in TOKENS.items():
        semantics = np.stack([np.roll(street, 3 * k, axis=0) for k in range(len(tokens))])
        made.write_scene(
            SceneLabels(
                scene_id=scene_id,
                frame_tokens=tokens,
                timestamps_us=np.arange(len(tokens)),
                T_global_grid=np.stack([np.eye(4)] * len(tokens)),
                semantics=semantics,
                confidence=np.full(semantics.shape, 1, np.uint8),
                mask=np.full(semantics.shape, MaskBit.TRUSTED, np.uint8),
            )
        )
    return made


def folder(store: LabelStore) -> Path:
    return Path(str(store.place))


def session_of(store: LabelStore) -> ReviewSession:
    labels = StoredLabels(folder(store))
    return ReviewSession(labels, "there is no log", reviews=Reviews(store))


@contextmanager
def served(store: LabelStore, queue: tuple[QueueItem, ...] = ()) -> Iterator[int]:
    session = session_of(store)
    frame = session.frame("scene-a", 0)
    with serving(
        session, frame, show=LayerSettings(), port=0, reviewer="anna", queue=queue
    ) as port:
        yield port


@pytest.fixture
def port(store: LabelStore) -> Iterator[int]:
    with served(store) as port:
        yield port


def entries(store: LabelStore) -> list[tuple[str, str, tuple[str, ...], str]]:
    """Reviewer, verdict, frames and note of the verdicts that count, read from the disk anew."""
    return [
        (e.reviewer, e.what.verdict.value, e.what.tokens, e.what.note)
        for e in Reviews(store).entries()
        if isinstance(e.what, VerdictEntry)
    ]


def shown(tab: Tab, scene_id: str, k: int) -> bool:
    return f"{scene_id}, {k} of 0.." in tab.text()


def test_only_this_machine_can_connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), timeout=5).close()
    with pytest.raises(OSError):  # a server on all addresses would answer here too
        socket.create_connection(("127.0.0.2", port), timeout=5)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::"])
def test_an_address_that_others_reach_is_refused(store: LabelStore, host: str) -> None:
    session = session_of(store)
    frame = session.frame("scene-a", 0)
    with (
        pytest.raises(ValueError, match=host),
        serving(session, frame, show=LayerSettings(), host=host, port=0, reviewer="anna"),
    ):
        pass


@pytest.mark.parametrize("origin", ["http://elsewhere.example", "http://localhost.example:80"])
def test_a_page_from_elsewhere_sees_nothing(port: int, origin: str) -> None:
    with Tab(port, origin=origin) as tab:
        assert "localhost" in tab.until(lambda: tab.notifications)[0]
        assert not tab.controls and not tab.glb_bytes()


@pytest.mark.parametrize("origin", ["http://localhost:9000", "http://127.0.0.1:8080"])
def test_a_page_opened_through_ssh_is_at_home(port: int, origin: str) -> None:
    with Tab(port, origin=origin) as tab:
        tab.until(lambda: shown(tab, "scene-a", 0))


def test_no_page_can_make_it_public(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    import viser._viser

    asked = threading.Event()
    monkeypatch.setattr(viser._viser, "ViserTunnel", lambda *a, **k: asked.set())
    with Tab(port) as tab:
        tab.ask("ShareUrlRequest")
        tab.until(lambda: shown(tab, "scene-a", 0))
        tab.click("reject")
        tab.until(lambda: tab.notifications)
        assert not asked.is_set()


def test_a_port_that_is_taken_is_named(store: LabelStore) -> None:
    session = session_of(store)
    frame = session.frame("scene-a", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(SetupError, match=f"port {port} .*--serve"),
            serving(session, frame, show=LayerSettings(), port=port, reviewer="anna"),
        ):
            pass


def test_without_viser_the_error_says_what_to_install(
    store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    session = session_of(store)
    frame = session.frame("scene-a", 0)
    with (
        pytest.raises(SetupError, match=r"pip install -e '\.\[browser\]'"),
        serving(session, frame, show=LayerSettings(), port=0, reviewer="anna"),
    ):
        pass


def test_a_verdict_is_in_the_store_with_its_note_and_reviewer(store: LabelStore, port: int) -> None:
    with Tab(port) as tab:
        tab.until(lambda: shown(tab, "scene-a", 0))
        tab.click("+1")
        tab.until(lambda: shown(tab, "scene-a", 1))
        tab.change("reviewer", "  bert ")
        tab.change("note", "a <b>car</b> in the wall")
        tab.click("reject")
        tab.until(lambda: tab.notifications)
        assert entries(store) == [("bert", "reject", ("second",), "a <b>car</b> in the wall")]
        assert "a &lt;b&gt;car&lt;/b&gt; in the wall" in tab.until(
            lambda: tab.text() if "bert" in tab.text() else ""
        )
        assert tab.value("note") == ""


def test_undo_takes_back_the_last_verdict_of_the_named_reviewer_alone(
    store: LabelStore, port: int
) -> None:
    with Tab(port) as tab:
        tab.until(lambda: shown(tab, "scene-a", 0))
        for reviewer, verdict in (("bert", "accept"), ("anna", "unsure")):
            tab.change("reviewer", reviewer)
            tab.click(verdict)
            tab.until(lambda v=verdict: any(v in n for n in tab.notifications))
        tab.change("reviewer", "bert")
        tab.click("undo")
        tab.until(lambda: any("taken back" in n for n in tab.notifications))
        assert entries(store) == [("anna", "unsure", ("first",), "")]


def test_a_verdict_needs_a_reviewer(store: LabelStore, port: int) -> None:
    with Tab(port) as tab:
        tab.until(lambda: shown(tab, "scene-a", 0))
        tab.change("reviewer", " ")
        tab.click("accept")
        assert "name" in tab.until(lambda: tab.notifications)[0]
        assert entries(store) == []


def test_a_broken_connection_changes_neither_reviewer_nor_frame(store: LabelStore) -> None:
    kept: dict[str, str] = {}
    with served(store) as port:
        with Tab(port, storage=kept) as tab:
            tab.until(lambda: shown(tab, "scene-a", 0))
            tab.change("reviewer", "bert")
            tab.change("scene", "scene-b")
            tab.until(lambda: shown(tab, "scene-b", 0))
            tab.click("+1")
            tab.until(lambda: shown(tab, "scene-b", 1) and '"k": 1' in "".join(kept.values()))
        with Tab(port, storage=kept) as again:
            again.until(lambda: shown(again, "scene-b", 1))
            again.click("reject")
            again.until(lambda: any("reject" in n for n in again.notifications))
    assert [e[:3] for e in entries(store)] == [("bert", "reject", ("last",))]
    with served(store) as port, Tab(port, storage=kept) as later:
        later.until(lambda: shown(later, "scene-a", 0))  # of another run only the name
        assert later.value("reviewer") == "bert"


@pytest.mark.parametrize("kept", ["", "null", "[]", "{", '{"run": 1}', '{"k": "x"}'])
def test_what_a_browser_kept_may_be_anything(port: int, kept: str) -> None:
    with Tab(port, storage={"label-review": kept}) as tab:
        tab.until(lambda: shown(tab, "scene-a", 0))
        assert tab.value("reviewer") == "anna"


def test_tabs_have_their_own_frame_and_see_each_others_verdicts(
    store: LabelStore, port: int
) -> None:
    with Tab(port) as one, Tab(port) as other:
        for tab in (one, other):
            tab.until(lambda tab=tab: shown(tab, "scene-a", 0))
        other.change("scene", "scene-b")
        other.until(lambda: shown(other, "scene-b", 0))
        assert shown(one, "scene-a", 0)
        other.change("scene", "scene-a")
        other.until(lambda: shown(other, "scene-a", 0))
        other.change("reviewer", "bert")
        other.click("reject")
        one.until(lambda: "bert" in one.text())


def test_what_another_process_writes_is_seen(store: LabelStore, port: int) -> None:
    with Tab(port) as tab:
        tab.until(lambda: "not judged yet" in tab.text())
        judged = VerdictEntry(scene_id="scene-a", tokens=("first",), verdict=Verdict.UNSURE)
        Reviews(store).add(judged, reviewer="carl")
        tab.until(lambda: "carl" in tab.text())


def test_the_queue_leads_from_verdict_to_verdict(store: LabelStore) -> None:
    queue = tuple(
        QueueItem(scene_id=scene_id, k=k, token=TOKENS[scene_id][k], why=why, sampled=sampled)
        for scene_id, k, why, sampled in (
            ("scene-a", 0, "priority 0.9", False),
            ("scene-b", 1, "drawn at random", True),
            ("scene-a", 2, "priority 0.1", False),
        )
    )
    with served(store, queue) as port, Tab(port) as tab:
        tab.until(lambda: shown(tab, "scene-a", 0) and "priority 0.9" in tab.text())
        tab.click("accept")
        tab.until(lambda: shown(tab, "scene-b", 1) and "drawn at random" in tab.text())
        tab.click("reject")
        tab.until(lambda: shown(tab, "scene-a", 2) and "1 of 3" in tab.text())
        tab.click("previous")
        tab.until(lambda: shown(tab, "scene-b", 1))
        tab.until(lambda: "2 of 5 frames reviewed" in tab.text())
    marks = {e.what.tokens: e.what.sampled for e in Reviews(store).entries()}  # type: ignore[union-attr]
    assert marks == {("first",): False, ("last",): True}


def test_a_class_can_be_hidden_and_only_faces_that_can_be_seen_are_sent(port: int) -> None:
    with Tab(port) as tab:
        tab.until(lambda: tab.has("car (72)") and tab.glb_bytes())
        whole = tab.glb_bytes()
        n_surface = 2 * 40 * 40 + 4 * 40 + 2 * (6 * 3 + 4 * 3)  # road; the car's sides; its top
        assert whole < 80 * (n_surface + 10) + 4000
        tab.click("driveable_surface")
        tab.until(lambda: tab.glb_bytes() < whole)


def test_a_slider_that_runs_ends_where_it_was_left(port: int) -> None:
    with Tab(port) as tab:
        tab.until(lambda: shown(tab, "scene-a", 0))
        for k in (1, 2, 1, 0, 1, 2):
            tab.change("frame", k)
        tab.until(lambda: shown(tab, "scene-a", 2) and tab.value("frame") == 2)


def test_a_frame_that_cannot_be_read_is_said_and_the_tab_stays(
    store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(store)
    read = session.frame

    def frame(scene_id: str, k: int):
        if k == 1:
            raise SetupError("frame 1 is damaged")
        return read(scene_id, k)

    monkeypatch.setattr(session, "frame", frame)
    with (
        serving(
            session, frame("scene-a", 0), show=LayerSettings(), port=0, reviewer="anna"
        ) as port,
        Tab(port) as tab,
    ):
        tab.until(lambda: shown(tab, "scene-a", 0))
        tab.click("+1")
        assert "damaged" in tab.until(lambda: tab.notifications)[0]
        tab.until(lambda: tab.value("frame") == 0)
        tab.click("reject")
        tab.until(lambda: len(tab.notifications) > 1)
        assert entries(store)[0][2] == ("first",)


def test_playing_goes_on_until_a_verdict_is_given(store: LabelStore, port: int) -> None:
    with Tab(port) as tab:
        tab.until(lambda: shown(tab, "scene-a", 0))
        tab.change("play", True)
        tab.until(lambda: shown(tab, "scene-a", 2))
        tab.until(lambda: shown(tab, "scene-a", 0))
        tab.click("unsure")
        tab.until(lambda: tab.notifications and tab.value("play") is False)
        here = tab.until(lambda: [k for k in range(3) if shown(tab, "scene-a", k)])
        time.sleep(1.2)
        assert [k for k in range(3) if shown(tab, "scene-a", k)] == here


def test_a_click_into_the_scene_tells_the_voxel(port: int) -> None:
    with Tab(port) as tab:
        tab.until(lambda: shown(tab, "scene-a", 0) and "Click a voxel" in tab.text())
        tab.point((4.0, 0.1, 30.0), (0.0, 0.0, -1.0))
        tab.until(lambda: "(28, 20, 4)" in tab.text() and "car" in tab.text())
        tab.until(lambda: any("picked" in name for name in tab.scene))
        tab.point((4.0, 0.1, 30.0), (0.0, 0.0, 1.0))
        tab.until(lambda: "No voxel there" in tab.text())


def test_ground_truth_takes_no_verdicts(store: LabelStore) -> None:
    session = ReviewSession(StoredLabels(folder(store)), "there is no log")
    frame = session.frame("scene-a", 0)
    with (
        serving(session, frame, show=LayerSettings(), port=0, reviewer="anna") as port,
        Tab(port) as tab,
    ):
        tab.until(lambda: "takes no verdicts" in tab.text())
        assert not tab.has("reject") and not tab.has("reviewer")


def test_the_command_says_how_to_reach_it_and_ends_cleanly(store: LabelStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "viz/inspect.py", str(folder(store)), "--serve", str(port)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    said = ""
    while "Ctrl+C" not in said:
        line = process.stdout.readline()
        assert line, said
        said += line
    assert f"http://localhost:{port}" in said and f"ssh -L {port}:localhost:{port}" in said
    with Tab(port) as tab:
        tab.until(lambda: shown(tab, "scene-a", 0))
    with socket.create_connection(("127.0.0.1", port), timeout=20) as monitor:
        monitor.sendall(b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert monitor.recv(100) == b""  # hung up on, and nothing is printed
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert rest.strip().splitlines() == ["stopped; all verdicts are in the store"]


def test_a_person_in_chromium_rejects_a_frame(store: LabelStore, tmp_path: Path) -> None:
    with served(store) as port, chromium(tmp_path / "profile") as page:
        page.open(f"http://127.0.0.1:{port}")
        page.until("document.body.innerText.includes('scene-a, 0 of 0..2')", timeout_s=50)
        page.click("+1")
        page.until("document.body.innerText.includes('scene-a, 1 of 0..2')")
        page.click("reject")
        page.until("document.body.innerText.includes('anna, just now')")
        assert entries(store) == [("anna", "reject", ("second",), "")]
        own = (f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}", "blob:", "data:")
        assert [url for url in page.requested if not url.startswith(own)] == []
        assert page.errors == []
        assert page.value("document.querySelector('canvas[data-engine]').width") > 0


def test_a_closed_tab_leaves_nothing_behind(store: LabelStore, port: int) -> None:
    with Tab(port) as gone:
        gone.until(lambda: shown(gone, "scene-a", 0))
        before = {t.name for t in threading.enumerate() if t.name.startswith("browser tab")}
    assert before
    deadline = time.monotonic() + 20
    while any(t.name in before for t in threading.enumerate()):
        assert time.monotonic() < deadline, "the closed tab's worker goes on"
        time.sleep(0.05)
