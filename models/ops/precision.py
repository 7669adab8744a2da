"""Which devices compute in bfloat16, and parts that must stay in float32 under ``torch.autocast``.

Geometry in bfloat16 would be off by whole cells, and the sparse convolution's own autograd
function is unknown to autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor


def full_precision(like: Tensor) -> torch.autocast:
    """A context without autocast on the tensor's device; cast its inputs with ``.float()``."""
    return torch.autocast(like.device.type, enabled=False)


def computes_bfloat16(device: str) -> bool:
    """Whether the device has instructions for bfloat16; one without them emulates it, several times
    as slow as float32."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities[name]) for name in capabilities if name.endswith("bf16"))
