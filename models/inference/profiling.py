"""Cost of each stage of a network: parameters, multiplications, time and memory.

A stage is a child of the network, or a method of one where a child has several (the lift's depth
network, geometry and pooling; the voxelisation). Costs are exclusive: what runs inside an inner
stage counts there only.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

OTHER = "other"
STAGES = {
    "img_backbone": "image backbone",
    "img_neck": "image neck",
    "img_view_transformer.matching": "stereo matching",
    "img_view_transformer.depth_and_context": "lift: depth network",
    "img_view_transformer.plan": "lift: geometry",
    "img_view_transformer.splat": "lift: pooling",
    "img_view_transformer": "lift: depth network",
    "pts_middle_encoder.voxels": "voxelisation",
    "pts_middle_encoder": "sparse encoder",
    "occ_fuser": "fuser",
    "pts_backbone": "BEV backbone",
    "pts_neck": "BEV neck",
    "img_bev_encoder_backbone": "BEV backbone",
    "img_bev_encoder_neck": "BEV neck",
    "occ_head": "head",
}
"""Child or method of a child, by its name in the network; other children go by their own name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """Cost of one stage for one batch.

    Attributes:
        macs: multiply-accumulates of convolutions and matrix products.
        traffic_bytes: every operator's inputs and outputs; caches make it less in truth.
        seconds: median over the repeats.
        peak_bytes: largest memory allocated at once while the stage ran, weights aside.
    """

    parameters: int
    macs: int
    traffic_bytes: int
    seconds: float
    peak_bytes: int


def stage_costs(
    network: nn.Module,
    forward: Callable[[], object],
    *,
    parameters_of: nn.Module,
    before: Callable[[], object] = lambda: None,
    repeat: int,
    device: torch.device,
) -> dict[str, StageCost]:
    """Run ``forward``, which runs the network, and share its costs out to the network's stages.

    Parameters are counted in ``parameters_of``, the same network before its norms were folded.
    ``before`` runs before every timed run.

    One warm-up, ``repeat`` timed runs, one run that counts, and one that watches memory.
    """
    parameters: dict[str, int] = defaultdict(int)
    for name, child in parameters_of.named_children():
        parameters[STAGES.get(name, name)] += sum(p.numel() for p in child.parameters())
    watch = _Watch(device)
    runs: list[dict[str, float]] = []
    with watch.over(network):
        for k in range(repeat + 1):
            before()
            watch.begin()
            forward()
            if k:
                runs.append(watch.end())
        with _Count(watch) as count:
            forward()
        peaks = _memory(forward, watch, device)
    stages = list(dict.fromkeys([*watch.order, OTHER]))
    return {
        stage: StageCost(
            parameters=parameters.get(stage, 0),
            macs=count.macs[stage],
            traffic_bytes=count.traffic[stage],
            seconds=statistics.median(run.get(stage, 0.0) for run in runs),
            peak_bytes=peaks.get(stage, 0),
        )
        for stage in stages
    }


class _Watch:
    """Knows which stage runs, and sums the time of each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stack = [OTHER]
        self.order: list[str] = []
        self.begin()

    def begin(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.mark = self._now()

    def end(self) -> dict[str, float]:
        self._share()
        return dict(self.seconds)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _share(self) -> None:
        now_s = self._now()
        self.seconds[self.stack[-1]] += now_s - self.mark
        self.mark = now_s

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._share()
        if name not in self.order:
            self.order.append(name)
        self.stack.append(name)
        try:
            with record_function(f"stage {name}"):
                yield
        finally:
            self._share()
            self.stack.pop()

    @contextmanager
    def over(self, network: nn.Module) -> Iterator[None]:
        """Every stage of the network reports here."""
        wrapped: list[tuple[nn.Module, str, Any]] = []
        for name, child in network.named_children():
            methods = [key for key in STAGES if key.startswith(f"{name}.")]
            for path in (*methods, name):
                method = path.removeprefix(name).removeprefix(".") or "forward"
                if hasattr(child, method):
                    wrapped.append((child, method, vars(child).get(method)))
                    setattr(child, method, self._timed(getattr(child, method), path))
        try:
            yield
        finally:
            for child, method, own in wrapped:  # a compiled module has its own forward
                delattr(child, method) if own is None else setattr(child, method, own)

    def _timed(self, call: Callable[..., Any], path: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.stage(STAGES.get(path, path)):
                return call(*args, **kwargs)

        return timed


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts multiplications and bytes of every operator for the running stage."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.watch = watch
        self.macs: dict[str, int] = defaultdict(int)
        self.traffic: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry and func.has_kernel_for_dispatch_key(
            torch._C.DispatchKey.CompositeImplicitAutograd
        ):
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        stage = self.watch.stack[-1]
        if packet in flop_registry:
            self.macs[stage] += flop_registry[packet](*args, **kwargs, out_val=out) // 2
        if not func.is_view:
            self.traffic[stage] += sum(map(_bytes, (*args, *kwargs.values(), out)))
        return out


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0


def _memory(forward: Callable[[], object], watch: _Watch, device: torch.device) -> dict[str, int]:
    """Most bytes that were allocated since the start of the run, per stage."""
    activities = [ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities, profile_memory=True) as recorded:
        forward()
    events = recorded.profiler.kineto_results.events()
    spans = [
        (e.start_ns(), e.start_ns() + e.duration_ns(), e.name().removeprefix("stage "))
        for e in events
        if e.name().startswith("stage ")
    ]
    allocations = sorted(
        (e.start_ns(), e.nbytes())
        for e in events
        if e.name() == "[memory]" and e.device_type().name == device.type.upper()
    )
    peaks: dict[str, int] = defaultdict(int)
    held = 0
    for time_ns, size in allocations:
        held += size
        inside = [(end - begin, name) for begin, end, name in spans if begin <= time_ns <= end]
        stage = min(inside)[1] if inside else OTHER
        peaks[stage] = max(peaks[stage], held)
    return peaks
