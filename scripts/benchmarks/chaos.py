"""Attack the store, the job and the readers at random, and count the promises that break.

    python scripts/benchmarks/chaos.py --kills 50 --json OUT.json  # SIGKILL to all
    python scripts/benchmarks/chaos.py --drivers 50          # two jobs start on one store
    python scripts/benchmarks/chaos.py --signals 50          # Ctrl-C and SIGTERM at any moment
    python scripts/benchmarks/chaos.py --flips 2000          # bits of a store
    python scripts/benchmarks/chaos.py --fuzz 5000           # inputs of every reader
    python scripts/benchmarks/chaos.py --full-disk           # writing where nothing fits any more
    python scripts/benchmarks/chaos.py --proxy 200           # a store in S3 that answers badly

Each mode is a file of ``chaos_modes``; what it promises stands there. Exit code 0: no
promise broke.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

import reporting
from chaos_modes.outcome import Options, Outcome

from datasets.cli.exit_codes import exit_code

MODES = ("kills", "drivers", "signals", "flips", "fuzz", "full-disk", "proxy")


def main() -> int:
    parser = reporting.parser(__doc__, json=True)
    modes = parser.add_mutually_exclusive_group(required=True)
    for mode in MODES:
        if mode == "full-disk":
            modes.add_argument("--full-disk", action="store_const", const=1)
        else:
            modes.add_argument(f"--{mode}", type=int, metavar="N")
    add = parser.add_argument
    add("--scenes", type=int, default=12, help="of the city, for kills, drivers and signals")
    add("--frames", type=int, default=2, help="of a scene")
    add("--every", type=float, nargs=2, default=(2.0, 14.0), help="seconds between kills")
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    counts = ((mode, getattr(args, mode.replace("-", "_"))) for mode in MODES)
    mode, number = next((mode, number) for mode, number in counts if number is not None)
    options = Options(
        number=number,
        seed=args.seed,
        scenes=args.scenes,
        frames=args.frames,
        every_s=(args.every[0], args.every[1]),
    )
    # a mode's imports (Ray, a server for S3) are those of no other
    run = importlib.import_module(f"chaos_modes.{mode.replace('-', '_')}").run
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        outcome: Outcome = run(options, Path(folder))
    print(outcome.text)
    reporting.write_figures({"seed": args.seed} | outcome.facts, args.json)
    return 1 if outcome.bad else 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
