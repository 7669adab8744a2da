"""Export a camera student to ONNX and check it against PyTorch."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.cli.logs import log_words, open_log
from datasets.cli.next_step import print_next
from datasets.cli.scenes import first_split, usable_scenes_of
from datasets.errors import SetupError
from datasets.files.replacing import replacing
from datasets.frames import Frame, SceneSource
from datasets.geometry.transforms import inverse
from datasets.model_inputs import ModelInputs, collate, prepare_frame
from datasets.sources.example import example_inputs
from models.checkpoints.checkpoint import load_checkpoint
from models.inference.onnx_export import INSTALL, OPSET, Rig, camera_config, rig_tables, write_onnx
from models.inference.predictor import OccupancyPredictor, keep_freed_memory
from models.networks.camera_student import CameraStudent
from models.presets import Preset, build_network, preset

ENOUGH = 0.9999
"""Share of voxels that must get the same class from both."""
RUNS = 5


class OtherClassesError(Exception):
    """onnxruntime gives other classes than PyTorch."""


def run(args: argparse.Namespace) -> int:
    """Export and check; gives the exit code. Raises ``SetupError``."""
    for module in ("onnx", "onnxruntime", "onnxscript"):
        if importlib.util.find_spec(module) is None:
            raise SetupError(
                f"{module} is not installed (extra 'onnx', a download of 43 MB): {INSTALL}"
            )
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # torchvision is not missed
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    fixed_rig = args.calibration == "constant"

    network, chosen, metadata = student(args.weights, args.preset)
    if args.root is None:
        if fixed_rig and args.weights:
            raise SetupError(
                "--calibration constant is for one rig: name a log of it with --source and --root, "
                "or export with --calibration input"
            )
        inputs = example_inputs(chosen.inputs)
        names = [f"camera {i}" for i in range(inputs.images.shape[1])]
        metadata["rig_from"] = "made up"
    else:
        source = open_log(args)
        frame = one_frame(source, args.scene, args.frame, root=args.root)
        frame = as_mounted(frame) if fixed_rig else frame
        inputs = collate([prepare_frame(source, frame, chosen.inputs)])
        names = [view.name for view in frame.cameras]
        metadata["rig_from"] = f"{source.name}, scene {frame.scene_id}, frame {frame.token}"
    rig = Rig.of(inputs, names)

    say(f"{chosen.name}: exporting, calibration {args.calibration}; rig: {metadata['rig_from']}")
    try:
        with replacing(args.out) as unchecked:
            began = time.monotonic()
            written = write_onnx(
                unchecked,
                network,
                chosen,
                rig,
                fixed_rig=fixed_rig,
                argmax=args.argmax,
                metadata=metadata,
            )
            megabytes = unchecked.stat().st_size / 1e6
            say(f"exported in {time.monotonic() - began:.0f} s: {megabytes:.1f} MB, opset {OPSET}")
            for kind, values in (("input", written.inputs), ("output", written.outputs)):
                for name, description in values.items():
                    print(f"  {kind:6}  {name:8}  {description}")
            say(f"checking: {RUNS} runs each, alternating, {args.threads} threads")
            feeds = {"images": inputs.images.numpy()}
            if not fixed_rig:
                tables = rig_tables(chosen, rig).named()
                feeds |= {name: table.numpy() for name, table in tables.items()}
            check = compare(unchecked, network, chosen, inputs, feeds, threads=args.threads)
            print(check)
            if check.same < ENOUGH:
                raise OtherClassesError
    except OtherClassesError:
        print(f"error: less than {ENOUGH:.2%} the same; nothing written", file=sys.stderr)
        return 1
    print(f"onnx: {args.out}")
    if args.weights is not None and args.root is not None:
        split = ["--split", first_split(source, "val")]
        print_next("evaluate", "--weights", args.weights, *log_words(args), *split)
    return 0


def say(text: str) -> None:
    print(text, flush=True)


def student(weights: Path | None, name: str) -> tuple[CameraStudent, Preset, dict[str, str]]:
    """The network, what it is, and where it comes from."""
    if weights is None:
        chosen = preset(name)
        camera_config(chosen)
        torch.manual_seed(0)
        network, origin = build_network(chosen.network).eval(), {"weights": "untrained"}
    else:
        model = load_checkpoint(weights)
        chosen, network = model.preset, model.module
        camera_config(chosen)
        origin = {"weights": weights.name, "weights_sha256": model.weights_sha256}
    assert isinstance(network, CameraStudent)
    return network, chosen, origin


def one_frame(source: SceneSource, scene_id: str | None, token: str | None, *, root: Path) -> Frame:
    """The named frame of a log, or its first."""
    scene_id = usable_scenes_of(source, scene_id or "all", root=root)[0]
    frames = source.scene(scene_id).frames
    for frame in frames:
        if token in (None, frame.token):
            return frame
    raise SetupError(f"scene {scene_id} has no frame {token!r}; its first is {frames[0].token}")


def as_mounted(frame: Frame) -> Frame:
    """The frame with its cameras where they are on the vehicle, whenever they took their picture.

    In a frame of a log each camera's pose holds the motion since the LiDAR key-frame, which is
    another in every frame.
    """
    views = tuple(
        replace(
            view,
            T_ego_camera=inverse(view.T_ego_vehicle) @ view.T_ego_camera,
            T_ego_vehicle=np.eye(4),
        )
        for view in frame.cameras
    )
    return replace(frame, cameras=views)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """PyTorch and onnxruntime on the same frame.

    Attributes:
        difference: largest one of the logits; None where classes are given out.
        largest: magnitude among PyTorch's logits.
        same: share of voxels with the same class; voxels: how many there are.
        torch_ms, teacher_ms, onnx_ms: median milliseconds of one frame; the second for the network
            as this toolkit runs it (``OccupancyPredictor``).
    """

    difference: float | None
    largest: float
    same: float
    voxels: int
    torch_ms: float
    teacher_ms: float
    onnx_ms: float

    def __str__(self) -> str:
        rows = [
            ("same class", f"{self.same:.4%} of {self.voxels:,} voxels"),
            ("PyTorch", f"{self.torch_ms:,.0f} ms a frame (median)"),
            ("folded", f"{self.teacher_ms:,.0f} ms a frame (median), PyTorch too"),
            ("onnxruntime", f"{self.onnx_ms:,.0f} ms a frame (median)"),
        ]
        if self.difference is not None:
            text = f"{self.difference:.2e} at most, of logits up to {self.largest:.3g}"
            rows.insert(0, ("difference", text))
        return "\n".join(f"  {name:12}  {text}" for name, text in rows)


def compare(
    path: Path,
    network: CameraStudent,
    chosen: Preset,
    inputs: ModelInputs,
    feeds: dict[str, NDArray[np.generic]],
    *,
    threads: int,
) -> Check:
    """Run both on the CPU by turns, after one warm-up each, and compare what they give."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    teacher = OccupancyPredictor(network, chosen)
    seconds = []
    with torch.inference_mode():
        for _ in range(1 + RUNS):
            marks = [time.perf_counter()]
            logits = network(inputs)
            marks.append(time.perf_counter())
            teacher.predict(inputs)
            marks.append(time.perf_counter())
            (given,) = session.run(None, feeds)
            marks.append(time.perf_counter())
            seconds.append(np.diff(marks))
    torch_s, teacher_s, onnx_s = np.median(seconds[1:], axis=0)
    expected = logits.numpy()
    is_logits = given.shape == expected.shape
    classes = given.argmax(-1) if is_logits else given
    return Check(
        difference=float(np.abs(given - expected).max()) if is_logits else None,
        largest=float(np.abs(expected).max()),
        same=float((classes == expected.argmax(-1)).mean()),
        voxels=classes.size,
        torch_ms=1e3 * torch_s,
        teacher_ms=1e3 * teacher_s,
        onnx_ms=1e3 * onnx_s,
    )
