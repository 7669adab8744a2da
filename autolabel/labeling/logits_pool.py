"""Memory in which logits wait for the thread that goes on with them."""

from __future__ import annotations

import torch
from torch import Tensor


class LogitsPool:
    """Where logits wait for another thread: on a CPU, in memory that frames use in turn.

    Were the network's own arrays handed on, they would be freed at any moment of its next pass and
    pierce the heap, which grew by a tenth in a long scene.
    """

    def __init__(self) -> None:
        self.empty: list[Tensor] = []

    def put(self, logits: Tensor) -> Tensor:
        if logits.device.type != "cpu":
            return logits
        try:
            place = self.empty.pop()
        except IndexError:
            place = torch.empty_like(logits)
        return place.copy_(logits)

    def clear(self, place: Tensor) -> None:
        """Its values are no longer needed."""
        if place.device.type == "cpu":
            self.empty.append(place)
