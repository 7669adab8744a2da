"""What a browser remembers for us, so that a broken connection or a reload changes nothing.

A page that connects anew is a new tab to us. Its browser's local storage says who was reviewing and
where: a verdict must not go under another name because a line was down.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from datasets.files.json_files import json_text

KEY = "label-review"
_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Who reviews, and which frame.

    Attributes:
        reviewer: empty if the name that tabs begin with was left as it is.
    """

    reviewer: str
    scene_id: str
    k: int


class Memory:
    """The local storage of one tab's browser.

    Args:
        client: ``viser.ClientHandle``.
        run: of the server; a frame that was kept under another is not recalled.
    """

    def __init__(self, client: Any, run: str) -> None:
        self._storage, self._run = client.local_storage, run
        self._kept: Place | None = None

    def recall(self) -> Place | None:
        """What was kept last; None if nothing was, or the browser keeps nothing. Of another run
        only the reviewer is recalled, the scene is empty."""
        try:
            text = self._storage.get_item(KEY, timeout=_TIMEOUT_S)
            kept = json.loads(text or "null")
            reviewer, scene_id, k = str(kept["reviewer"]), str(kept["scene"]), int(kept["k"])
            same = kept["run"] == self._run
        except (RuntimeError, TimeoutError, ValueError, KeyError, TypeError):
            return None
        return Place(reviewer=reviewer, scene_id=scene_id if same else "", k=k if same else 0)

    def keep(self, place: Place) -> None:
        """Remember; returns at once."""
        if place == self._kept:
            return
        self._kept = place
        kept = {"reviewer": place.reviewer, "scene": place.scene_id, "k": place.k}
        self._storage.set_item(KEY, json_text({**kept, "run": self._run}))
