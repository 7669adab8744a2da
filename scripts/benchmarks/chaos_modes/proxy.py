"""Use a label store in S3 through a proxy that answers badly, and see what is lost or made up.

Each episode is one command on a store of its own, while a share of all requests is refused,
dropped, cut or late. Then the proxy passes everything on, and the same command runs again. Good is:
every error is ours, names the store, and no scene reads as empty or absent or with other content;
``prune`` takes none away; and the second time the command leaves what an undisturbed one leaves.

Not good enough would be a store that answers "404" for what it holds: S3 does not, and nobody could
tell. Here it does, too, for single requests, since a wrong proxy might.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos_modes.flips import content, labelled, reviewed, target, verified
from chaos_modes.outcome import Options, Outcome, broke, facts_of
from chaos_modes.s3_server import Proxy, s3_bucket
from tqdm import tqdm

from datasets.benchmarks.catalogue import benchmark
from datasets.errors import AutolabelError
from datasets.labels.store import FrameLabels, LabelStore
from datasets.loading.targets import PseudoLabels
from datasets.reviews.entries import Verdict, VerdictEntry
from datasets.reviews.overlay import Reviews
from datasets.sources.opening import open_source
from datasets.storage.backend import GROUP, as_backend
from datasets.store_ops.export import export
from datasets.store_ops.maintenance import prune
from datasets.store_ops.merge import merge

RATES = (0.02, 0.1, 0.2)
"""Shares of the requests that meet a fault; one is drawn for an episode."""
Tree = dict[str, bytes]


@dataclass(slots=True)
class Counts:
    """Attributes:
    faults: by kind.
    episodes: by command.
    failed: of these, those that ended with an error while the proxy was bad; by command.
    wrong_errors: exceptions that are not ours, or that do not name the store.
    wrong_data: something else was read, or less, without an error.
    lost: scenes, reviews or notes that were gone.
    unequal: what the command left in the end is not what an undisturbed one leaves.
    cases: the first of those that broke a promise.
    """

    faults: Counter[str] = field(default_factory=Counter)
    episodes: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    wrong_errors: int = 0
    wrong_data: int = 0
    lost: int = 0
    unequal: int = 0
    cases: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        return self.wrong_errors + self.wrong_data + self.lost + self.unequal


def run(options: Options, folder: Path) -> Outcome:
    local = labelled(folder)
    rng = random.Random(options.seed)
    with s3_bucket() as bucket:
        proxy = Proxy(os.environ["AWS_ENDPOINT"], rng)
        with proxy.serving():
            attack = Attack(local, folder, proxy, rng)
            for n in tqdm(range(options.number), desc="episodes"):
                attack.episode(f"{bucket}/{n}/labels.zarr")
    attack.counts.faults = proxy.done
    counts = attack.counts
    return Outcome(text=describe(counts), facts=facts_of(counts), bad=counts.bad)


class Attack:
    """Runs episodes and counts what happens."""

    def __init__(self, local: Path, folder: Path, proxy: Proxy, rng: random.Random) -> None:
        self.local, self.proxy, self.rng = local, proxy, rng
        self.counts = Counts()
        self.folder = folder
        self.source = open_source("city", folder / "city", past_sweeps=0)
        store = LabelStore.open(local)
        self.header = store.header
        self.whole = tree(local)
        self.scenes: dict[str, tuple[str, list[FrameLabels]]] = {}
        for scene_id in store.scene_ids():
            scene = store.scene(scene_id)
            frames = [scene.frame(k) for k in range(len(scene))]
            self.scenes[scene_id] = (scene.attributes["inputs"], frames)
        self.read_before = self._read(local)
        self._label(folder / "plain.zarr")
        self.plain = tree(folder / "plain.zarr")
        self._export(local, folder / "exported")
        self.exported = files(folder / "exported")

    def episode(self, url: str) -> None:
        commands = {
            "label": self.label,
            "resume": self.resume,
            "verify": self.verify,
            "read": self.read,
            "prune": self.prune,
            "merge": self.merge,
            "export": self.export,
            "review": self.review,
        }
        name = self.rng.choice(sorted(commands))
        self.counts.episodes[name] += 1
        commands[name](url)

    def label(self, url: str) -> None:
        self._try("label", url, lambda: self._label(url))
        self._label(url)
        self._equal("label", url, self.plain)

    def resume(self, url: str) -> None:
        """Some scenes are there before."""
        n_kept = self.rng.randrange(1, len(self.scenes))
        gone = tuple(f"scenes/{scene_id}/" for scene_id in sorted(self.scenes)[n_kept:])
        upload({k: v for k, v in self.plain.items() if not k.startswith(gone)}, url)
        before = tree(url)
        self._try("resume", url, lambda: self._label(url))
        self._none_lost("resume", url, before)
        self._label(url)
        self._equal("resume", url, self.plain)

    def verify(self, url: str) -> None:
        upload(self.whole, url)
        ended = self._try("verify", url, lambda: verified(url))
        all_whole = f"{len(self.scenes)} of {len(self.scenes)} scenes are whole"
        if ended is not None:
            code, said = ended
            if code == 0 and not (all_whole in said and "left over" not in said):
                broke(self.counts, "wrong_data", f"verify says {said!r:.300}")
            if code == 2 and url not in said:
                broke(self.counts, "wrong_errors", f"verify says {said!r:.300}")
            self.counts.failed["verify"] += code != 0
        if (after := verified(url))[0]:
            broke(self.counts, "unequal", f"verify, undisturbed: {after[1]!r:.300}")
        self._equal("verify", url, self.whole)

    def read(self, url: str) -> None:
        """As students and people who review do."""
        upload(self.whole, url)
        values = self._try("read", url, lambda: self._read(url))
        if values is not None and values != self.read_before:
            other = [k for k in self.read_before if values.get(k) != self.read_before[k]]
            broke(self.counts, "wrong_data", f"read other {other[:3]}")
        if self._read(url) != self.read_before:
            broke(self.counts, "unequal", "read, undisturbed")

    def prune(self, url: str) -> None:
        """Something is left over; nothing else may go."""
        first = f"scenes/{min(self.scenes)}/"
        left = {
            key.replace(first, "scenes/half/"): data
            for key, data in self.whole.items()
            if key.startswith(first) and key != first + GROUP
        }
        upload(self.whole | left, url)
        self._try("prune", url, lambda: prune(LabelStore.open(url)))
        self._none_lost("prune", url, self.whole)
        prune(LabelStore.open(url))
        self._equal("prune", url, self.whole)

    def merge(self, url: str) -> None:
        upload(self.whole, url)
        out = url.replace("labels.zarr", "merged.zarr")
        self._try("merge", url, lambda: merge([LabelStore.open(url)], out), out)
        self._none_lost("merge", url, self.whole)
        merge([LabelStore.open(url)], out)
        local = self.folder / "merged.zarr"
        if not local.exists():
            merge([LabelStore.open(self.local)], local)
        self._equal("merge", out, tree(local))

    def export(self, url: str) -> None:
        upload(self.whole, url)
        out = self.folder / f"export-{self.counts.episodes.total()}"
        bad = self._try("export", url, lambda: self._export(url, out))
        exported = files(out)
        if other := [key for key in exported if exported[key] != self.exported.get(key)]:
            broke(self.counts, "wrong_data", f"export wrote {other[:3]}")
        if bad == {} and exported != self.exported:
            broke(
                self.counts, "wrong_data", f"export of {len(exported)} files says that all is well"
            )
        for reason in (bad or {}).values():
            if url not in reason:
                broke(self.counts, "wrong_errors", f"export: {reason:.300}")
        self.counts.failed["export"] += bool(bad)
        self._export(url, out)
        if files(out) != self.exported:
            broke(self.counts, "unequal", "export")

    def review(self, url: str) -> None:
        upload(self.whole, url)
        first = min(self.scenes)
        tokens = tuple(frame.token for frame in self.scenes[first][1])
        verdict = VerdictEntry(scene_id=first, tokens=tokens, verdict=Verdict.UNSURE)
        wrote = self._try(
            "review", url, lambda: Reviews(LabelStore.open(url)).add(verdict, reviewer="eve")
        )
        self._none_lost("review", url, self.whole)
        reviews = Reviews(LabelStore.open(url))
        entries = [entry for entry in reviews.entries() if entry.reviewer == "eve"]
        if wrote is not None and entries != [wrote]:
            broke(self.counts, "lost", f"review: {entries} instead of {wrote}")
        if len(entries) > 1 or reviews.damaged():
            broke(self.counts, "unequal", f"review: {entries} {reviews.damaged()}")

    def _try(self, command: str, url: str, do: Callable[[], Any], *others: str) -> Any:
        """The command's result while the proxy is bad; None where it ended with an error."""
        self.proxy.rate = self.rng.choice(RATES)
        try:
            return do()
        except (AutolabelError, OSError) as error:
            self.counts.failed[command] += 1
            if not any(place in str(error) for place in (url, *others)):
                broke(self.counts, "wrong_errors", f"{command} does not say where: {error!r:.300}")
        except Exception as error:
            broke(self.counts, "wrong_errors", f"{command}: {error!r:.300}")
        finally:
            self.proxy.rate = 0.0
        return None

    def _label(self, url: Any) -> None:
        store = LabelStore.open_or_create(url, self.header)
        for scene_id, (inputs, frames) in self.scenes.items():
            with store.writer(scene_id, len(frames), inputs=inputs) as writer:
                for frame in frames:
                    writer.append(frame)

    def _read(self, url: Any) -> dict[str, str]:
        store = LabelStore.open(url)
        values = {scene_id: content(store, scene_id) for scene_id in store.scene_ids()}
        values["reviews"] = reviewed(store)
        labels = PseudoLabels(url)
        for scene_id in labels.scene_ids():
            for frame in self.source.scene(scene_id).frames:
                values[frame.token] = target(labels, frame)
        return values

    def _export(self, url: Any, out: Path) -> dict[str, str]:
        return export(url, benchmark("occ3d_nuscenes"), self.source, out)

    def _none_lost(self, command: str, url: str, wanted: Tree) -> None:
        stored = tree(url)
        if gone := sorted(key for key in wanted if stored.get(key) != wanted[key]):
            broke(self.counts, "lost", f"{command}: {gone[:3]} of {len(gone)}")

    def _equal(self, command: str, url: str, wanted: Tree) -> None:
        stored = tree(url)
        keys = stored.keys() | wanted.keys()
        if other := sorted(key for key in keys if stored.get(key) != wanted.get(key)):
            broke(self.counts, "unequal", f"{command}: {other[:3]} of {len(other)}")


def tree(place: Any) -> Tree:
    backend = as_backend(place)
    return {key: backend.read(key) for key, _ in backend.files("")}


def upload(content: Tree, url: str) -> None:
    backend = as_backend(url)
    backend.map(lambda item: backend.write(*item), content.items())


def files(folder: Path) -> Tree:
    with contextlib.suppress(FileNotFoundError):
        return tree(folder)
    return {}


def describe(counts: Counts) -> str:
    faults = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.faults.items()))
    episodes = ", ".join(
        f"{n} {name} ({counts.failed[name]} ended with an error)"
        for name, n in sorted(counts.episodes.items())
    )
    return "\n".join(
        (
            f"{counts.faults.total()} faults: {faults}",
            f"{counts.episodes.total()} episodes: {episodes}",
            f"errors that are not ours or name no store {counts.wrong_errors}, wrong data "
            f"{counts.wrong_data}, lost {counts.lost}, unequal in the end {counts.unequal}",
            *(f"  {case}" for case in counts.cases),
        )
    )
