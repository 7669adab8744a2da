"""What the report of a label store promises: all told, all escaped, nothing fetched, no crash."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chromium import chromium
from label_scenes import as_older_code_wrote_it, tree
from PIL import Image
from report_stores import HOSTILE, LEVELS, Cells, audit_file, header, make_store, report

from datasets.cli.launch import launch
from datasets.errors import SetupError
from datasets.labels.audit_record import read_audit
from datasets.labels.store import LabelStore
from datasets.reviews.overlay import NoteEntry, Reviews, Verdict, VerdictEntry
from viz.html_report.markup import tag

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "labels.zarr")


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "labels.zarr"))


def test_whatever_comes_from_data_is_escaped(store: Path) -> None:
    reviews = Reviews(LabelStore.open(store))
    note = NoteEntry(scene_id="scene-a", token="scene-a-0", note=HOSTILE)
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
    assert (
        "url(" not in page
        and "@import" not in page
        and "http:" not in page
        and "https:" not in page
    )


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
    assert "Images were not asked for" in page


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
    as_older_code_wrote_it(store)
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
    as_older_code_wrote_it(store)
    path = store / "zarr.json"
    group = json.loads(path.read_text())
    group["attributes"]["provenance"]["calibration"]["reliability"]["right"] = [[1]]
    group["attributes"]["provenance"]["config"]["promise"]["class_error"] = "none"
    path.write_text(json.dumps(group))
    (store / "quarantine/scene-q/zarr.json").write_text("{}")
    page = report(store)
    assert "damaged provenance: calibration" in page and "damaged provenance: promise" in page
    assert "the note on it cannot be read" in page


def test_audit_ranks_names_faults_and_counts_votes(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = str(audit_file(store.parent))
    cells = Cells(report(store, "--audit", audit))
    assert f"inspect.py {store} --queue --audit {audit}" in capsys.readouterr().out.splitlines()[-1]
    ranked = cells.tables["Scenes, worst first"][1:]
    assert [row[0] for row in ranked] == ["scene-b", "scene-a"]
    row = cells.row("Scenes, worst first", "scene-b")
    assert (row["Score"], row["Misses"], row["Flicker"]) == ("0.500", "3.10 %", "-")
    faults = cells.tables["Faults that the audit names"][1:]
    assert faults == [["pose jumps", "scene-b", HOSTILE]]
    votes = dict(zip(*cells.tables["Votes by class"], strict=True))
    assert (votes["Class"], votes["Misses"]) == ("car", "7.5 %")


def test_what_the_audit_could_not_judge_is_not_good(store: Path) -> None:
    notes = {"faults": [], "notes": ["not judged: LiDAR tilt: 1 frames show the ground"]}
    page = report(store, "--audit", str(audit_file(store.parent, **notes)))
    assert "names no fault in what it could judge; 1 things it could not" in page
    page = report(store, "--audit", str(audit_file(store.parent, faults=[])))
    assert "The audit names no fault." in page


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
    assert (
        launch("report", [str(made), "--audit", str(path), "--out", str(tmp_path / "r.html")]) == 2
    )
    assert named in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_audit_that_is_no_json_is_a_users_fault(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(SetupError, match="not JSON"):
        read_audit(tmp_path / "a.json")


def test_reviews_are_counted_and_nothing_of_the_store_changes(store: Path) -> None:
    reviews = Reviews(LabelStore.open(store))
    first = VerdictEntry(
        scene_id="scene-a", tokens=("scene-a-0", "scene-a-1"), verdict=Verdict.ACCEPT
    )
    second = VerdictEntry(
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
    assert launch("report", [str(made), "--pictures", "0", "--out", str(out)]) == 2
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


def test_chromium_shows_the_page_without_complaint(store: Path, tmp_path: Path) -> None:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("Chromium is not installed")
    report(store, "--audit", str(audit_file(store.parent)))
    picture = tmp_path / "page.png"
    done = subprocess.run(
        [
            program,
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


def test_page_carries_a_policy_that_its_browser_keeps(store: Path, tmp_path: Path) -> None:
    page = report(store, "--audit", str(audit_file(store.parent)))
    assert page.index('http-equiv="Content-Security-Policy"') < page.index("<style")
    intruder = "<script>document.title = 'intruded'</script><img src='https://example.org/x.png'>"
    told = tmp_path / "report.html"
    told.write_text(page.replace("</main>", f"{intruder}</main>"), encoding="utf-8")
    with chromium(tmp_path / "profile") as browser:
        browser.open(told.as_uri())
        browser.until("document.readyState == 'complete' && document.querySelector('main') != null")
        assert browser.value("document.title").endswith("label report")
        assert (
            browser.value("getComputedStyle(document.querySelector('.card')).borderRadius") != "0px"
        )
        assert browser.value(
            "getComputedStyle(document.querySelector('td.bar')).getPropertyValue('--v')"
        )
        assert browser.value(
            "[...document.images].filter(i => i.src.startsWith('data:')).every(i => i.naturalWidth)"
        )
        refused = [error for error in browser.errors if "Content Security Policy" in error]
        assert len(refused) == len(browser.errors) == 2  # the intruder's script and picture
