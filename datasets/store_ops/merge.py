"""One store of the parts that one job was divided into."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from datasets.errors import SetupError
from datasets.files.store_path import StorePath
from datasets.labels.header import header_difference
from datasets.labels.store import LabelStore
from datasets.labels.validity import LOG_KEY
from datasets.reviews.summary import carry_over


def merge(
    stores: Sequence[LabelStore], out: StorePath, *, on_scene: Callable[[], None] = lambda: None
) -> LabelStore:
    """One store of the scenes of several that one job made in parts, with the reviews of them all.
    It goes on where it ended.

    Raises:
        SetupError: they are of different jobs, or two have different labels of one scene.
        SceneError: a scene cannot be read, or is not what was written.
    """
    first = stores[0]
    logs = {str(store.header.provenance.get(LOG_KEY, "")) for store in stores}
    if len(logs - {""}) > 1:  # older code did not say
        raise SetupError(f"the stores are of different logs: {', '.join(sorted(logs))}")
    owner: dict[str, LabelStore] = {}
    for store in stores:
        if store.header.run_id != first.header.run_id:
            difference = header_difference(first.header, store.header)
            raise SetupError(f"{store.place}: of another job than {first.place} ({difference})")
        for scene_id in store.scene_ids():
            other = owner.setdefault(scene_id, store)
            sums = [s.scene(scene_id).attributes["sha256"] for s in (store, other)]
            if sums[0] != sums[1]:
                raise SetupError(f"{store.place}, {other.place}: other labels of scene {scene_id}")
    merged = LabelStore.open_or_create(out, first.header)
    for scene_id, store in sorted(owner.items()):
        if scene_id not in merged:
            scene = store.scene(scene_id)
            inputs, sums = scene.attributes["inputs"], scene.attributes["sha256"]
            with merged.writer(scene_id, len(scene), inputs=inputs, expect=sums) as writer:
                writer.carry(scene.attributes)
                for k in range(len(scene)):
                    writer.append(scene.frame(k))
        on_scene()
    carry_over(stores, merged)
    return merged
