"""Parts that must stay in float32 when a network runs under ``torch.autocast``.

Geometry in bfloat16 would be off by whole cells, and the sparse convolution's own autograd
function is unknown to autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(like: Tensor) -> torch.autocast:
    """A context without autocast on the tensor's device; cast its inputs with ``.float()``."""
    return torch.autocast(like.device.type, enabled=False)
