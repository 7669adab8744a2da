"""A teacher of the city on a real drive: before and after fine-tuning on its first seconds.

    python scripts/benchmarks/transfer.py PANDASET --out runs/transfer
    python scripts/benchmarks/transfer.py PANDASET --out runs/transfer \\
        --teachers fusion=FUSION.safetensors lidar=LIDAR.safetensors

A PandaSet sequence is cut into parts, labels are built for each from its own point classes and
boxes (``make_labels.py``). Teachers, of 0.4 m voxels or of ``occ3d_coarse``, are fine-tuned on
frames 30-44, calibrated on 45-49, and label frames 50-79; camera students learn from the truth of
30-49 alone, and with the labels of 50-64 that the first teacher gives, and are scored on 65-79,
which no training sees. Everything is done by the project's own commands, printed as they run; what
is there already is not done again.

OUT/transfer.json and OUT/transfer.md hold the figures, OUT/pictures what to look at.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import reporting

from datasets.benchmarks import NAMES
from datasets.cli.exit_codes import exit_code
from datasets.errors import SetupError
from datasets.files.replacing import write_text
from models.checkpoints.checkpoint import load_checkpoint
from models.presets import COARSE_GRID

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("30-44", "45-49", "50-64", "65-79")
SHIPPED = "models/weights/city_small_teacher.safetensors"
FIGURES = (
    "mIoU[camera-visible]",
    "mIoU[all]",
    "mIoU[trusted]",
    "trusted occupied voxels that are right",
)
BENCHMARKS = {"occ3d_nuscenes": "17 classes, 0.4 m", "occ3d_coarse": "7 classes, 0.8 m"}
STUDENTS = {"occ3d_nuscenes": "camera_tiny", "occ3d_coarse": "camera_coarse"}
"""By the benchmark that they and their teacher are made for."""
IMAGE_PARTS = ("img_backbone", "img_neck")
"""What a student starts with of its teacher's network; heads differ from preset to preset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What is run on which scenes.

    Attributes:
        log: folder log of the drive, made here.
        sequence: name of the PandaSet sequence.
    """

    out: Path
    log: Path
    sequence: str
    steps: int
    student_steps: int
    learning_rate: float

    def scene(self, part: str) -> str:
        return f"{self.sequence}-{part}"

    @property
    def drive(self) -> list[str]:
        return ["--source", "folder", "--root", str(self.log)]

    @property
    def known(self) -> str:
        """Scenes with ground truth that may be learnt from; the last one calibrates."""
        return ",".join(self.scene(part) for part in PARTS[:2])

    @property
    def unknown(self) -> str:
        """Scenes that teachers label and are scored on."""
        return ",".join(self.scene(part) for part in PARTS[2:])

    def make_log(self, pandaset: Path) -> None:
        if not (self.log / "log.json").exists():
            command("scripts/convert_pandaset.py", pandaset, self.log, "--parts", *PARTS)
        if not (self.log / "gts").exists():
            built = ["--out", self.log, "--past-sweeps", 4]
            command("scripts/make_labels.py", *self.drive, "--split", "all", *built)

    def fine_tuned(self, name: str, weights: Path) -> Path:
        folder = self.out / f"{name}-fine-tuned"
        preset = load_checkpoint(weights).preset.name
        tuned = folder / f"{preset}_teacher.safetensors"
        if not tuned.exists():
            command(
                *("scripts/train_teacher.py", *self.drive, "--preset", preset, "--init", weights),
                *(
                    "--benchmark",
                    benchmark_of(weights),
                    "--split",
                    self.known,
                    "--held-out",
                    1,
                    "--steps",
                    self.steps,
                ),
                *("--learning-rate", self.learning_rate, "--memory-gib", 2, "--out", folder),
            )
        return tuned

    def labels(self, name: str, weights: Path, scenes: str) -> Path:
        store = self.out / f"{name}.zarr"
        command(
            *("autolabel/run.py", *self.drive, "--weights", weights, "--split", scenes),
            *("--store", store, "--workers", 1),
        )
        return store

    def scores(self, name: str, weights: Path, *what: object) -> dict[str, dict[str, Any]]:
        """By benchmark: that of the weights, and the coarse one, to which the other converts."""
        scores = {}
        for benchmark in dict.fromkeys((benchmark_of(weights), "occ3d_coarse")):
            path = self.out / "scores" / f"{name}-{benchmark}.json"
            if not path.exists():
                chosen = ("--benchmark", benchmark, "--out", path)
                command("scripts/evaluate.py", *what, *self.drive, *chosen)
            scores[benchmark] = json.loads(path.read_text())
        return scores

    def student(self, name: str, teacher: Path, labels: Path | None) -> dict[str, dict[str, Any]]:
        """A student that starts with the teacher's image network."""
        folder, benchmark = self.out / f"student-{name}", benchmark_of(teacher)
        preset = STUDENTS[benchmark]
        weights = folder / f"{preset}_student.safetensors"
        if not weights.exists():
            command(
                *("scripts/train_student.py", *self.drive, "--preset", preset),
                *("--benchmark", benchmark, "--labelled-split", self.known),
                *(("--labels", labels, "--balance", 10) if labels else ()),
                *("--init", teacher, "--init-parts", *IMAGE_PARTS),
                *("--steps", self.student_steps, "--batch", 2),
                *("--memory-gib", 2, "--out", folder),
            )
        test = ("--weights", weights, "--split", self.scene(PARTS[3]))
        return self.scores(f"student-{name}", weights, *test)

    def image(self, name: str, *what: object) -> None:
        path = self.out / "pictures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            shown = ("--scene", self.scene(PARTS[2]), "--frame", 1, "--screenshot", path)
            command("viz/inspect.py", *what, *self.drive, *shown)


def command(*words: object) -> None:
    """Run one of the project's commands.

    Raises:
        SetupError: it failed.
    """
    arguments = [str(word) for word in words]
    print(f"\n$ python {shlex.join(arguments)}", file=sys.stderr, flush=True)
    if subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False).returncode:
        raise SetupError(f"failed: python {shlex.join(arguments)}")


def benchmark_of(weights: Path) -> str:
    """The benchmark with the network's voxels."""
    return "occ3d_coarse" if load_checkpoint(weights).preset.grid == COARSE_GRID else NAMES[0]


def measure(transfer: Transfer, teachers: dict[str, Path]) -> dict[str, Any]:
    """Every figure, by teacher and student."""
    of_teachers: dict[str, Any] = {}
    versions: dict[str, Path] = {}
    for name, weights in teachers.items():
        versions |= {f"{name}, city": weights}
        versions |= {f"{name}, fine-tuned": transfer.fine_tuned(name, weights)}
    for version, weights in versions.items():
        label = version.replace(", ", "-")
        store = transfer.labels(label, weights, transfer.unknown)
        of_teachers[version] = transfer.scores(label, weights, "--store", store)
        transfer.image(label, store)
    transfer.image("truth", "--truth", transfer.log)
    first = next(iter(teachers.values()))
    students = {"truth of 30-49": transfer.student("truth", first, None)}
    for version, weights in list(versions.items())[:2]:
        label = version.replace(", ", "-")
        store = transfer.labels(f"lesson-{label}", weights, transfer.scene(PARTS[2]))
        name = f"truth of 30-49 + labels of {version}"
        students[name] = transfer.student(label, first, store)
    return {"teachers": of_teachers, "students": students}


def markdown(figures: dict[str, Any], transfer: Transfer) -> str:
    lines = [
        "# From the city to a real drive",
        "",
        f"PandaSet sequence {transfer.sequence}. Teachers fine-tuned in {transfer.steps} steps on "
        f"frames {PARTS[0]}, calibrated on {PARTS[1]}, scored on the labels they give to frames "
        f"{PARTS[2]} and {PARTS[3]}. Students: {transfer.student_steps} steps, scored on frames "
        f"{PARTS[3]}. Truth: built from the drive's own point classes and boxes.",
        "",
    ]
    for kind in ("teachers", "students"):
        rows = []
        for name, scores in figures[kind].items():
            for benchmark, table in scores.items():
                values = (table.get(figure) for figure in FIGURES)
                cells = ("" if value is None else f"{value:.2f}" for value in values)
                rows.append([name, BENCHMARKS[benchmark], *cells])
        lines += [reporting.markdown_table([kind, "benchmark", *FIGURES], rows), ""]
    lines += ["IoU[camera-visible] of the seven classes:", ""]
    models = figures["teachers"] | figures["students"]
    tables = {
        name: scores["occ3d_coarse"]["IoU[camera-visible]"] for name, scores in models.items()
    }
    classes = [c for c in next(iter(tables.values())) if any(t[c] for t in tables.values())]
    rows = [
        [name, *("-" if table[c] is None else f"{table[c]:.1f}" for c in classes)]
        for name, table in tables.items()
    ]
    lines.append(reporting.markdown_table(["", *classes], rows))
    return "\n".join(lines) + "\n"


def teacher_of(text: str) -> tuple[str, Path]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=WEIGHTS")
    return name, Path(path)


def main() -> int:
    parser = reporting.parser(__doc__)
    parser.add_argument("pandaset", type=Path, help="folder with the sequence, as exported")
    parser.add_argument("--sequence", default="002")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--teachers",
        nargs="+",
        type=teacher_of,
        default=[("fusion", ROOT / SHIPPED)],
        metavar="NAME=WEIGHTS",
        help="the first one teaches the students",
    )
    parser.add_argument("--steps", type=int, default=300, help="of fine-tuning")
    parser.add_argument("--student-steps", type=int, default=400)
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="of fine-tuning")
    args = parser.parse_args()
    began, out = time.monotonic(), args.out.resolve()
    transfer = Transfer(
        out=out,
        log=out / "log",
        sequence=args.sequence,
        steps=args.steps,
        student_steps=args.student_steps,
        learning_rate=args.learning_rate,
    )
    transfer.make_log(args.pandaset.resolve())
    figures = measure(transfer, {name: path.resolve() for name, path in args.teachers})
    figures["minutes"] = round((time.monotonic() - began) / 60, 1)
    text = markdown(figures, transfer)
    write_text(out / "transfer.md", text)
    print(text)
    reporting.write_figures(figures, out / "transfer.json")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
