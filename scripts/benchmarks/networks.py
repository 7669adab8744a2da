"""What networks cost, stage by stage, beside a plain run and the machine's own limits.

    python scripts/benchmarks/networks.py models
    python scripts/benchmarks/networks.py models --preset fusion_r18_occ3d \\
        --device cuda --train --json OUT
    python scripts/benchmarks/networks.py models --weights FILE --source nuscenes --root DIR
    python scripts/benchmarks/networks.py visibility --source nuscenes --root DIR

Every preset is measured as it labels (``OccupancyPredictor``: norms folded, channels last), exact
and fast, on a made-up frame of real size and density or on the reference frame (``--oracle``).
Beside it in the same minutes: the same network run plainly (as built, channels first), and what the
machine reaches on one large convolution and on a copy of memory. Times are medians.

``visibility`` times hits, passes and camera masks of a log's frames on the Occ3D grid, through what
the LiDAR hit, beside plain numpy; files are read before the clock starts.
"""

from __future__ import annotations

import argparse
import functools
import platform
import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import reporting
import torch
from torch import nn
from tqdm import tqdm

sys.path.append(str(Path(__file__).resolve().parents[1] / "conformance"))  # network_stages
from network_stages import load_arrays, reference_inputs

from datasets.benchmarks.occ3d_nuscenes import GRID
from datasets.cli.exit_codes import exit_code
from datasets.errors import SetupError
from datasets.frames import points_in_ego
from datasets.geometry import raycast, raycast_numpy
from datasets.model_inputs import ModelInputs, collate, prepare_frame
from datasets.sources import SOURCES
from datasets.sources.example import example_inputs
from datasets.sources.opening import open_source
from datasets.visibility import ray_origins, ray_stride
from models.checkpoints.checkpoint import load_checkpoint
from models.inference.predictor import (
    OccupancyPredictor,
    agreement,
    channels_last,
    keep_freed_memory,
)
from models.inference.profiling import StageCost, stage_costs
from models.presets import (
    PRESETS,
    OccupancyNet,
    Preset,
    build_network,
    count_parameters,
    preset,
)
from models.training.losses import voxel_cross_entropy

DEFAULT = ("fusion_r18_occ3d", "flashocc_r50")


def main() -> int:
    parser = reporting.parser(__doc__)
    sub = parser.add_subparsers(dest="what", required=True)
    models = sub.add_parser("models", help="cost of networks by stage", allow_abbrev=False)
    add = models.add_argument
    add("--preset", nargs="+", default=DEFAULT, choices=sorted(PRESETS), metavar="NAME")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--threads", type=int, default=2, help="CPU threads")
    add("--repeat", type=int, default=5, help="timed runs; the median counts")
    add("--batch", type=int, default=1, help="frames per run")
    add("--weights", type=Path, help="trained weights instead of presets with random ones")
    add("--source", choices=SOURCES, default="city")
    add("--root", type=Path, help="log to take frames from instead of the made-up one")
    add("--past-sweeps", type=int, help="earlier sweeps in the made-up frame (as the preset says)")
    add("--oracle", type=Path, help="folder of reference outputs: use its frame (one sweep)")
    add("--train", action="store_true", help="a training step as well")
    add("--json", type=Path, help="write the figures there too")
    masks = sub.add_parser("visibility", help="cost of the masks of a frame", allow_abbrev=False)
    masks.add_argument("--source", choices=SOURCES, default="city")
    masks.add_argument("--root", type=Path, default=Path("runs/city"))
    masks.add_argument("--past-sweeps", type=int, default=9)
    masks.add_argument("--frames", type=int, default=4, help="at most so many")
    masks.add_argument("--threads", type=int, default=2)
    masks.add_argument("--repeat", type=int, default=5)
    masks.add_argument("--json", type=Path, help="write the figures there too")
    args = parser.parse_args()
    if args.what == "visibility":
        reporting.write_figures({"frames/s": measure_masks(args)}, args.json)
        return 0
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device")

    torch.set_num_threads(args.threads)
    keep_freed_memory()
    device = torch.device(args.device)
    limits = machine_limits(device, args.repeat)
    print(describe_machine(device, args.threads, limits))
    report: dict[str, Any] = {"machine": machine(device, args.threads) | limits, "presets": {}}
    torch.manual_seed(0)
    for chosen, network in networks(args):
        inputs, origin = frames_for(chosen, args)
        network = network.to(device).eval()
        figures = measure(chosen, network, inputs.to(device), origin, args, limits)
        report["presets"][chosen.name] = {"frame": origin} | figures
    reporting.write_figures(report, args.json)
    return 0


def networks(args: argparse.Namespace) -> Iterator[tuple[Preset, OccupancyNet]]:
    """What shall be measured."""
    if args.weights:
        model = load_checkpoint(args.weights)
        yield model.preset, model.module
        return
    for name in args.preset:
        chosen = preset(name).with_reference_parity() if args.oracle else preset(name)
        yield chosen, build_network(chosen.network)


def frames_for(chosen: Preset, args: argparse.Namespace) -> tuple[ModelInputs, str]:
    """A batch for the preset, and where it comes from."""
    spec = chosen.inputs
    if args.oracle:
        arrays = load_arrays(args.oracle, "teacher_r18")
        return reference_inputs(arrays, arrays["sensor2keyego"]), "the reference frame"
    if args.past_sweeps is not None:
        spec = replace(spec, past_sweeps=args.past_sweeps)
    if args.root is None:
        return example_inputs(spec, frames=args.batch), "made-up frames"
    source = open_source(args.source, args.root, past_sweeps=spec.past_sweeps)
    frames = [f for s in source.scene_ids("all") for f in source.scene(s).frames]
    if len(frames) < args.batch or spec.past_frames:
        raise SetupError(f"{args.root}: too few frames for this batch and preset")
    batch = [prepare_frame(source, frame, spec) for frame in frames[:: len(frames) // args.batch]]
    return collate(batch[: args.batch]), f"frames of {args.root}"


def measure(
    chosen: Preset,
    network: OccupancyNet,
    inputs: ModelInputs,
    origin: str,
    args: argparse.Namespace,
    limits: dict[str, float],
) -> dict[str, Any]:
    """Measure and print one network; the figures as JSON values."""
    steps = tqdm(total=6 + args.train, desc=chosen.name, leave=False)
    device = inputs.images.device
    exact, fast = (
        OccupancyPredictor(network, chosen),
        OccupancyPredictor(network, chosen, bfloat16=True),
    )
    steps.update()

    B = len(inputs.images)

    def anew() -> torch.Tensor:
        exact.clear_geometry_cache()
        return exact.predict(inputs)

    seconds = synced_medians(
        {
            "plain": lambda: plain(network, inputs),
            "exact": lambda: exact.predict(inputs),
            "exact, new geometry": anew,
            "fast": lambda: fast.predict(inputs),
        },
        args.repeat,
        device,
    )
    steps.update(2)
    close = agreement(exact.predict(inputs), fast.predict(inputs))
    tables = {}
    for mode, teacher in (("exact", exact), ("fast", fast)):
        tables[mode] = stage_costs(
            teacher.network,
            lambda teacher=teacher: teacher.predict(inputs),  # type: ignore[misc]
            parameters_of=network,
            before=teacher.clear_geometry_cache,
            repeat=args.repeat,
            device=device,
        )
        steps.update()
    step_s = training_step(network, chosen, inputs, args.repeat, device) if args.train else None
    steps.close()

    swept = inputs.points if chosen.inputs.lidar else None
    points = sum(len(cloud) for cloud in swept) // B if swept is not None else 0
    print(f"\n{chosen.name}: {count_parameters(network):,} parameters; {chosen.paper}")
    print(f"{B} x {inputs.images.shape[1]} images, {points:,} points each: {origin}")
    for mode, table in tables.items():
        print(f"\n{mode} mode, per batch, geometry anew\n{table_text(table, limits, mode)}")
    print(
        f"\nwhole network, no stage timers: plain {seconds['plain'] * 1e3:.0f} ms, "
        f"exact {seconds['exact'] * 1e3:.0f} ms ({seconds['plain'] / seconds['exact']:.2f}x; with "
        f"cameras that moved {seconds['exact, new geometry'] * 1e3:.0f} ms), "
        f"fast {seconds['fast'] * 1e3:.0f} ms ({seconds['plain'] / seconds['fast']:.2f}x)\n"
        f"frames/s when labelling: exact {B / seconds['exact']:.2f}, fast {B / seconds['fast']:.2f}"
    )
    if step_s is not None:
        print(f"frames/s when training (bfloat16, 1,500 columns a frame): {B / step_s:.2f}")
    print(
        f"fast beside exact: {100 * close.same:.3f} % of voxels have the same class, "
        f"mIoU {100 * close.miou:.2f} %, confidence differs by at most {close.confidence:.4f} "
        + ("" if args.weights else " (random weights)")
    )
    return {
        "parameters": count_parameters(network),
        "batch": B,
        "points": points,
        "seconds": seconds,
        "training_step_s": step_s,
        "agreement": asdict(close),
        "stages": {m: {k: asdict(c) for k, c in t.items()} for m, t in tables.items()},
    }


def measure_masks(args: argparse.Namespace) -> dict[str, float]:
    """Frames a second of hits, passes and camera masks: fast in threads, alone, plain numpy."""
    source = open_source(args.source, args.root, past_sweeps=args.past_sweeps)
    frames = [f for s in source.scene_ids("all") for f in source.scene(s).frames][: args.frames]
    cases = []
    for frame in frames:
        points = points_in_ego(source, frame, past=args.past_sweeps)
        origins = ray_origins(frame, points)
        occupied = raycast.lidar_evidence(origins, points[:, :3], GRID)[0] > 0
        cases.append((origins, points[:, :3], occupied, frame.cameras))

    def masks(case: tuple[Any, ...], kernels: ModuleType = raycast) -> tuple[Any, ...]:
        origins, ends, occupied, cameras = case
        visible = kernels.visible_from_cameras(occupied, GRID, cameras, stride=ray_stride(cameras))
        return *kernels.lidar_evidence(origins, ends, GRID), visible

    for fast, slow in zip(masks(cases[0]), masks(cases[0], raycast_numpy), strict=True):
        if (fast != slow).any():
            raise SetupError("the fast masks are not those of plain numpy")
    with ThreadPoolExecutor(args.threads) as pool:
        jobs = {
            f"{args.threads} threads": (lambda: list(pool.map(masks, cases)), len(cases)),
            "1 thread": (lambda: [masks(case) for case in cases], len(cases)),
            "plain numpy, 1 thread": (lambda: masks(cases[0], raycast_numpy), 1),
        }
        calls: dict[str, Callable[[], object]] = {name: call for name, (call, _) in jobs.items()}
        seconds = reporting.median_seconds(calls, args.repeat)
    rates = {name: count / seconds[name] for name, (_, count) in jobs.items()}
    rays = sum(len(ends) for _, ends, _, _ in cases) // len(cases)
    print(
        f"{len(cases)} frames of {args.root}, {rays:,} LiDAR rays and {len(frames[0].cameras)} "
        f"cameras each, {'x'.join(map(str, GRID.shape))} voxels; equal to plain numpy\n"
    )
    slowest = rates["plain numpy, 1 thread"]
    rows = [(name, f"{rate:.2f}", f"{rate / slowest:.1f}") for name, rate in rates.items()]
    columns = ("hits, passes and camera mask", "frames/s", "times plain numpy")
    print(reporting.markdown_table(columns, rows))
    return rates


@torch.inference_mode()
def plain(network: nn.Module, inputs: ModelInputs) -> object:
    return network(inputs)


def synced_medians(
    calls: dict[str, Callable[[], object]], repeat: int, device: torch.device
) -> dict[str, float]:
    """``median_seconds`` until the device has done the work."""

    def synced(call: Callable[[], object]) -> None:
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    waiting = {name: functools.partial(synced, call) for name, call in calls.items()}
    return reporting.median_seconds(waiting, repeat)


def training_step(
    network: nn.Module, chosen: Preset, inputs: ModelInputs, repeat: int, device: torch.device
) -> float:
    """Median seconds of forward, loss on sampled columns, backward and AdamW."""
    network = network.train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-5)
    X, Y, Z = chosen.grid.shape
    B = len(inputs.images)
    columns = torch.randperm(B * X * Y, device=device)[: 1500 * B]
    labels = torch.randint(0, chosen.taxonomy.n_classes, (len(columns), Z), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            logits = network.occ_head.columns(network.bev(inputs), columns)  # type: ignore[operator,union-attr]
            loss = voxel_cross_entropy(logits.float(), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return synced_medians({"step": step}, repeat, device)["step"]


def machine_limits(device: torch.device, repeat: int) -> dict[str, float]:
    """What one large convolution (256 to 256 channels, 3x3, 200x200) and a copy reach here."""
    limits = {}
    for mode, dtype in (("exact", torch.float32), ("fast", torch.bfloat16)):
        conv = nn.Conv2d(256, 256, 3, padding=1, device=device, dtype=dtype)
        conv = channels_last(conv)
        B = 16 if device.type == "cuda" else 1
        x = torch.randn(B, 256, 200, 200, device=device, dtype=dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            convolve = functools.partial(conv, x)
            seconds = synced_medians({"conv": convolve}, repeat, device)["conv"]
        limits[f"{mode}_gmac_per_s"] = B * 256 * 256 * 9 * 200 * 200 / seconds / 1e9
    size = 2**28
    source, target = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    seconds = synced_medians({"copy": lambda: target.copy_(source)}, repeat, device)["copy"]
    limits["copy_gb_per_s"] = 2 * size / seconds / 1e9
    return limits


def machine(device: torch.device, threads: int) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": name, "threads": threads, "torch": torch.__version__}


def describe_machine(device: torch.device, threads: int, limits: dict[str, float]) -> str:
    return (
        f"{machine(device, threads)['device']}, {threads} CPU threads, torch {torch.__version__}; "
        f"one large convolution reaches {limits['exact_gmac_per_s']:.0f} GMAC/s in float32 and "
        f"{limits['fast_gmac_per_s']:.0f} in bfloat16, a copy {limits['copy_gb_per_s']:.1f} GB/s"
    )


def table_text(table: dict[str, StageCost], limits: dict[str, float], mode: str) -> str:
    columns = ["stage", "parameters", "GMAC", "ms", "% of conv."]
    columns += ["GB moved", "% of copy", "peak MB"]
    rows = []
    for name, c in table.items():
        rate = c.macs / 1e9 / max(c.seconds, 1e-9) / limits[f"{mode}_gmac_per_s"]
        moved = c.traffic_bytes / 1e9
        bandwidth = moved / max(c.seconds, 1e-9) / limits["copy_gb_per_s"]
        cost = (f"{c.parameters:,}", f"{c.macs / 1e9:.2f}", f"{c.seconds * 1e3:.1f}")
        limit = (f"{100 * rate:.0f}", f"{moved:.2f}", f"{100 * bandwidth:.0f}")
        rows.append((name, *cost, *limit, f"{c.peak_bytes / 1e6:.0f}"))
    macs, seconds = (sum(getattr(c, f) for c in table.values()) for f in ("macs", "seconds"))
    peak = max(c.peak_bytes for c in table.values())
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    parameters = sum(c.parameters for c in table.values())
    rate = macs / 1e9 / seconds / limits[f"{mode}_gmac_per_s"]
    cost = (f"{parameters:,}", f"{macs / 1e9:.2f}", f"{seconds * 1e3:.1f}")
    rows.append(("all", *cost, f"{100 * rate:.0f}", "", "", f"{peak / 1e6:.0f}"))
    text = reporting.markdown_table(columns, rows)
    return f"{text}\nresident so far: {resident:.0f} MB"


if __name__ == "__main__":
    sys.exit(exit_code(main))
