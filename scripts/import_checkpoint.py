"""Import official EFFOcc or FlashOcc weights.

    python scripts/import_checkpoint.py epoch_42_ema.pth --preset fusion_r18_occ3d -o T.safetensors

Takes checkpoints with or without optimizer, EMA files, bare state dicts and, from a distillation
file, the student or the teacher, as the preset is. Everything must fit; nothing in the file is run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datasets.cli.exit_codes import exit_code
from datasets.errors import SetupError
from models.checkpoints.checkpoint import REFERENCE_PARITY_KEY, file_sha256, save_checkpoint
from models.checkpoints.official import convert, read_checkpoint
from models.presets import build_network, count_parameters, preset


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("file", type=Path, help="official checkpoint (.pth, or .safetensors)")
    parser.add_argument("--preset", required=True, help="the network that it is of")
    parser.add_argument("-o", "--out", type=Path, required=True, help="weights file to write")
    args = parser.parse_args()

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
        print(
            "confidence: not calibrated. autolabel/run.py labels with plain softmax as confidence "
            "and warns; scripts/calibrate.py fits a table on labelled scenes"
        )
    print(f"weights: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
