"""What a log or a store holds moves no cursor, forges no line and gives no secret away."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO, cast

import pytest
from failing_commands import failing, write_log
from label_scenes import header, scene
from s3_server import remote_tree, s3_bucket
from tqdm import tqdm

from autolabel.cluster.events import Events
from autolabel.cluster.progress import describe as describe_job
from datasets.cli.exit_codes import exit_code
from datasets.cli.launch import launch
from datasets.errors import SceneError, SetupError, UnwritableError
from datasets.files.printable import HIDDEN, Guarded, printable, redacted
from datasets.labels.store import LabelStore
from datasets.storage.backend import ObjectStoreBackend, as_backend, bucket_at
from datasets.storage.remote_path import RemotePath, remote_or_local
from datasets.store_ops.export import sharing
from datasets.taxonomy import Taxonomy
from viz.html_report.markup import tag

HOSTILE = "a\x1b]0;owned\x07b\x1b[2Kc\rd\ne\x9b31mf\u202eg\u2066h\u2028i\x7fj"
"""Window title, erased line, return, newline, C1, both kinds of bidi, end of line, DEL."""
RAW = set(HOSTILE) - set("abcdefghij]0;ownedb[2K31m")
SECRET = "wJalrXUtnFEMI"


def only_ours(text: str) -> bool:
    """Whether nothing but our own newlines is left of what moves a cursor."""
    return not (set(text) & (RAW - {"\n"}))


def test_every_kind_of_control_character_is_escaped() -> None:
    assert not set(printable(HOSTILE)) & RAW
    assert "\\x1b]0;owned\\x07" in printable(HOSTILE) and "\\u202e" in printable(HOSTILE)
    assert printable("a\nb", lines=True) == "a\nb" and printable("a\nb") == "a\\nb"
    plain = "Stra\N{LATIN SMALL LETTER SHARP S}e\t7, \N{CJK UNIFIED IDEOGRAPH-4E00} C:\\x1b"
    assert printable(plain) == plain


@pytest.mark.parametrize(
    "error",
    [
        SetupError(HOSTILE),
        SceneError(where=HOSTILE, frame=HOSTILE, rule=HOSTILE),
        UnwritableError(HOSTILE),
        FileNotFoundError(2, "No such file", HOSTILE),
        OSError(HOSTILE),
    ],
)
def test_an_error_that_quotes_data_is_one_line(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(failing(error)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and only_ours(told)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_whatever_a_command_prints_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> int:
        print(HOSTILE)
        print(f"warning: s3://KEY:{SECRET}@bucket", file=sys.stderr)
        sys.stdout.writelines([HOSTILE])
        for _ in tqdm(range(2), desc=HOSTILE.replace("\n", "")):
            pass
        return 0

    assert exit_code(main) == 0
    said = capsys.readouterr()
    assert only_ours(said.out) and "\\x1b]0;owned" in said.out
    assert only_ours(said.err.replace("\r", "")) and SECRET not in said.err
    assert "2/2" in said.err


def test_bars_keep_their_own_moves() -> None:
    class Stream:
        def __init__(self) -> None:
            self.told: list[str] = []
            self.encoding = "utf-8"

        def write(self, text: str) -> int:
            self.told.append(text)
            return len(text)

    stream = Stream()
    guarded = Guarded(cast(TextIO, stream))
    for text in ("\r  5%", "\n\x1b[A", "\r", "ab\x1b[A", "a\rb"):
        assert guarded.write(text) == len(text)
    assert stream.told == ["\r  5%", "\n\x1b[A", "\r", "ab\\x1b[A", "a\\rb"]
    assert guarded.encoding == "utf-8"


def test_a_traceback_of_ours_is_printable_too() -> None:
    import subprocess

    code = (
        "from datasets.cli.exit_codes import exit_code\n"
        f"def main(): raise ZeroDivisionError('\\x1b[2K s3://KEY:{SECRET}@b/c')\n"
        "exit_code(main)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert last == "ZeroDivisionError: \\x1b[2K s3://***@b/c"


def test_a_stores_hostile_texts_are_told_on_their_own_lines(tmp_path: Path) -> None:
    from dataclasses import replace

    assert "\n" not in sharing(HOSTILE) and only_ours(sharing(HOSTILE))
    store = LabelStore.create(tmp_path / "labels.zarr", replace(header(), licence=HOSTILE))
    store.write_scene(scene("s1"))
    store.quarantine("s2", HOSTILE, HOSTILE)
    assert LabelStore.open(tmp_path / "labels.zarr").header.licence == HOSTILE
    for path in (tmp_path / "labels.zarr").rglob("zarr.json"):
        assert path.read_text().isascii()


def test_store_info_and_verify_of_a_hostile_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    where = tmp_path / "labels.zarr"
    provenance = {"source": HOSTILE, "from": f"s3://KEY:{SECRET}@b"}
    store = LabelStore.create(where, replace(header(), licence=HOSTILE, provenance=provenance))
    store.write_scene(scene("s1"))
    store.quarantine("s2", HOSTILE, HOSTILE)
    (where / "scenes" / "s1\x1b[2K\nerror: forged").mkdir()
    for command in ("info", "verify"):
        launch("store", [command, str(where)])
        said = capsys.readouterr()
        told = (said.out + said.err).replace("\r", "")
        assert only_ours(told) and SECRET not in told
        assert not any(line.startswith(("e", "error: forged")) for line in told.splitlines())


def test_a_logs_hostile_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from datasets.cli.scenes import usable_scenes_of
    from datasets.sources.folder import FolderSource

    odd = "x\x1b[2K\nerror: forged"
    source = FolderSource(write_log(tmp_path, (odd, "plain")), past_sweeps=0)
    assert usable_scenes_of(source, "all", root=tmp_path) == ("plain",)
    assert len(capsys.readouterr().err.splitlines()) == 1
    with pytest.raises(ValueError, match="control character"):
        Taxonomy(
            name="t", names=("a\x1b", "free"), colors=((0, 0, 0), (1, 1, 1)), free_id=1,
            foreground=(), dynamic=(),
        )  # fmt: skip


def test_a_report_holds_no_control_character() -> None:
    page = tag("p", HOSTILE, title=HOSTILE)
    assert only_ours(page)
    assert SECRET not in tag("td", f"s3://KEY:{SECRET}@bucket")


@pytest.mark.parametrize(
    "text",
    [
        f"s3://KEY:{SECRET}@bucket/prefix",
        f"s3:/KEY:{SECRET}@bucket/prefix",
        f"error: s3://KEY:{SECRET}/a+b/{SECRET}@bucket: refused",
        f"https://user:{SECRET}@host/x",
        f"https://{SECRET}@host/x",
        f"https://h/b?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}&part=1",
        f"https://a.blob.core.windows.net/c?sv=1&sig={SECRET}",
        f"s3://bucket/p?access_key={SECRET}&secret_key={SECRET}",
        f"S3Store(config={{'aws_secret_access_key': '{SECRET}', 'session_token': \"{SECRET}\"}})",
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"ray://u:{SECRET}@head:10001",
    ],
)
def test_credentials_are_hidden(text: str) -> None:
    assert SECRET not in redacted(text) and "***" in redacted(text)
    assert SECRET not in printable(text)
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize("part", ["a-", "s3:/", "?key", "s3://a:", "access_key"])
def test_long_texts_end(part: str) -> None:
    text = part * 50_000 + "= @"  # hours, where the time grew with the square of the length
    assert len(printable(text)) <= len(text) + len(HIDDEN)


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/prefix/a@b: there is nothing of that name",
        "http://localhost:8000/x?frame=3",
        "frame token 'a': holds '/'; key: value; tokens = 3",
        "file:///tmp/a@b",
        "ssh -L 1:localhost:1 me@host",
        "KeyError: 'key'",
    ],
)
def test_what_is_no_credential_stays(text: str) -> None:
    assert redacted(text) == text


def test_a_remote_place_never_tells_its_credentials() -> None:
    url = f"s3://KEY:{SECRET}@bucket/labels"
    place, path = as_backend(url), remote_or_local(Path(f"{url}/log"))
    assert isinstance(place, ObjectStoreBackend) and isinstance(path, RemotePath)
    for told in (str(place), repr(place), str(path), repr(path), str(path / "a"), f"{path.parent}"):
        assert SECRET not in told and "bucket/labels" in told
    copy = pickle.loads(pickle.dumps((place, path / "x")))  # a worker on another machine
    assert copy[0] == place and copy[1].bucket == f"s3://KEY:{SECRET}@bucket"
    assert copy[1].key == "labels/log/x"
    config = cast(dict[str, str], bucket_at(f"s3://K%2FY:{SECRET}@bucket/labels").config)
    assert (config["access_key_id"], config["secret_access_key"]) == ("K/Y", SECRET)


@pytest.mark.parametrize(
    "url",
    [
        f"s3://bucket/p?secret_access_key={SECRET}",
        f"s3://KEY:{SECRET}/x@bucket/p",
        f"gs://KEY:{SECRET}@bucket/p",
        f"s3://{SECRET}@bucket/p",
    ],
)
def test_credentials_that_would_not_be_heeded_are_refused_unseen(url: str) -> None:
    with pytest.raises(SetupError, match="environment") as caught:
        bucket_at(url)
    assert SECRET not in str(caught.value)


def test_a_store_made_by_a_url_with_credentials_holds_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with s3_bucket() as bucket:
        url = bucket.replace("s3://", f"s3://KEY:{SECRET}@") + "/labels"
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name, raising=False)
        store = LabelStore.open_or_create(url, header())
        store.write_scene(scene("s1"))
        store.quarantine("s2", str(store.place), str(store.place))
        assert LabelStore.open(url).header.run_id == header().run_id
        assert remote_or_local(Path(f"{url}/zarr.json")).read_bytes().startswith(b"{")
        with pytest.raises(SetupError, match="there is nothing") as caught:
            LabelStore.open(url + "-not")
        assert SECRET not in str(caught.value)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "KEY")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        bucket_at.cache_clear()
        held = remote_tree(f"{bucket}/labels")
        assert held and SECRET not in repr(held)
    events = Events(tmp_path / "e.jsonl")
    events("job ended", reason=f"cannot write {url}", token="abc")
    events.close()
    line = (tmp_path / "e.jsonl").read_text()
    assert SECRET not in line and json.loads(line)["token"] == "abc"


def test_a_command_line_with_credentials_is_warned_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: Callable[[], int] = lambda: 0  # noqa: E731
    monkeypatch.setattr(sys, "argv", ["run.py", "--store", f"s3://KEY:{SECRET}@b/c"])
    assert exit_code(ends) == 0
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "AWS_SECRET_ACCESS_KEY" in told and SECRET not in told
    monkeypatch.setattr(sys, "argv", ["run.py", "--store", "s3://b/c"])
    assert exit_code(ends) == 0
    assert capsys.readouterr().err == ""


def test_the_closing_report_keeps_one_line_a_scene() -> None:
    from autolabel.cluster.summary import JobSummary
    from datasets.returns import DroppedReturns

    summary = JobSummary(
        scenes=0, frames=0, skipped=0, failures={"s1": HOSTILE}, voxels=0, trusted=0,
        trusted_occupied=0, returns=DroppedReturns(), retries=0, seconds=1.0, worker_s=0.0,
    )  # fmt: skip
    assert len(describe_job(summary, "s3://b/c").splitlines()) == 4
