"""Import official EFFOcc or FlashOcc weights."""

from __future__ import annotations

import argparse

from datasets.cli.next_step import print_next
from datasets.errors import SetupError
from models.checkpoints.checkpoint import REFERENCE_PARITY_KEY, file_sha256, save_checkpoint
from models.checkpoints.official import convert, read_checkpoint
from models.presets import build_network, count_parameters, preset


def run(args: argparse.Namespace) -> int:
    """Import; gives the exit code. Raises ``SetupError``."""
    chosen = preset(args.preset).with_reference_parity()
    official = read_checkpoint(args.file)
    try:
        converted = convert(official.tensors, chosen)
    except SetupError as error:
        raise SetupError(f"{args.file}: does not fit preset {args.preset!r}: {error}") from error
    network = build_network(chosen.network)
    network.load_state_dict(converted.state)
    metadata = {
        REFERENCE_PARITY_KEY: "true",
        "imported_from": args.file.name,
        "imported_sha256": file_sha256(args.file),
    }
    if official.epoch is not None:
        metadata["epoch"] = str(official.epoch)
    save_checkpoint(args.out, network, args.preset, metadata)

    after = "" if official.epoch is None else f" after {official.epoch} epochs"
    print(f"{args.file.name}: {official.kind}{after}, {len(official.tensors)} tensors")
    for note in converted.notes:
        print(f"  {note}")
    print(f"holds: {args.preset} ({chosen.paper}), {count_parameters(network):,} parameters")
    if chosen.inputs.lidar:
        print("confidence: not calibrated; labels get the plain softmax, with a warning")
    print(f"weights: {args.out}")
    if chosen.inputs.lidar:
        print_next("calibrate", args.out, "--source", "nuscenes", "--root", "DIR", "-o", "OUT")
    else:
        print_next("evaluate", "--weights", args.out, "--source", "nuscenes", "--root", "DIR")
    return 0
