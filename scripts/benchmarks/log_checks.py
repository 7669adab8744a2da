"""How often does the check of a log call clean scenes bad, and what does it say about wrong ones?

    python scripts/benchmarks/log_checks.py --seeds 9121 9122 9123 9124 --medium 9125 9126 \\
        --folder runs/pandaset --nuscenes DIR DIR --out scripts/benchmarks/checks-cpu

Cities are generated under ``--cities`` where they are not there: ``--seeds`` with images of
96x256, ``--medium`` of 225x400. ``--city`` names other cities (``scripts/make_city.py``). Every
scene is checked as it is; every ``--every``-th one of the cities also with each fault. The
thresholds were chosen on the cities of seeds 9000 to 9002, 9100 to 9105 and 9111 to 9116, which
must not be named here. Cameras are judged once more over all scenes of a log, and over those of a
city with a fault.

Written are OUT.json and OUT.md: alarms, right names and wrong names. A name is right where it says
what was done to the log; "cause not told" is neither right nor wrong.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import reporting
from confidence_study.faulty import (
    Change,
    ChangedLog,
    Frames,
    camera_turned,
    cameras_late,
    cameras_mounted,
    cameras_swapped,
    each_sweep,
    focal_length_scaled,
    lidar_inverted,
    lidar_moved,
    lidar_turned,
    poses_delayed,
    poses_noisy,
)
from numpy.typing import NDArray
from tqdm import tqdm

from datasets.annotations import AnnotatedSource, Annotations
from datasets.cli.exit_codes import exit_code
from datasets.files.json_files import write_json
from datasets.files.replacing import write_text
from datasets.frames import CameraView, Frame, LidarSweep, Scene
from datasets.geometry.transforms import inverse
from datasets.log_checks.cameras import CameraEvidence, camera_findings
from datasets.log_checks.motion import Finding
from datasets.log_checks.scene import check_scene
from datasets.plausibility import check_units
from datasets.sources.opening import open_source
from datasets.sources.synthetic.city import MARKER, CityConfig, generate_city
from datasets.taxonomy import Taxonomy

CHOSEN_ON = (9000, 9001, 9002, *range(9100, 9106), *range(9111, 9117))
SCENES, FRAMES = 12, 8
CAUSES = {
    r"the LiDAR turned by": "LiDAR turned",
    r"extrinsics look tilted": "LiDAR tilted",
    r"the ground.* lies at z": "LiDAR height",
    r"the motion [\d.]+ times as long": "motion length",
    r"all cameras: a focal length": "focal length of all",
    r"(?<!all )\b(\w+): a focal length": r"focal length of \1",
    r"all cameras: images taken": "cameras late",
    r"(\w+): its extrinsics turned": r"\1 turned",
    r"images of (\w+) and (\w+) look swapped": r"\1 and \2 swapped",
    r"all cameras: the extrinsics look inverted": "camera extrinsics inverted",
    r"all cameras: the extrinsics look like": "camera axes",
    r"at [-+.\d]+ m: its extrinsics look inverted": "LiDAR inverted",
    r"times look like (\w+)": r"times in \1",
    r"intensities look like 0\.\.1": "intensity 0..1",
}
"""How a finding names a cause. Every other bad finding names none."""


class CheckedLog(ChangedLog):
    """A changed log whose files are read once, with intensities times a factor."""

    def __init__(
        self, log: AnnotatedSource, change: Change, intensity: float, cache: _Kept
    ) -> None:
        super().__init__(log, change)
        self.annotated, self.intensity, self.kept = log, intensity, cache
        self.taxonomy: Taxonomy = log.taxonomy

    def scene(self, scene_id: str) -> Scene:
        scene = super().scene(scene_id)
        check_units(scene)
        return scene

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        if view.path not in self.kept.images:
            self.kept.images[view.path] = super().read_image(view)
        return self.kept.images[view.path]

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        if sweep.path not in self.kept.points:
            self.kept.points[sweep.path] = super().read_points(sweep)
        points = self.kept.points[sweep.path].copy()
        points[:, 3] *= self.intensity
        return points

    def annotations(self, frame: Frame) -> Annotations:
        if frame.token not in self.kept.marks:
            self.kept.marks[frame.token] = self.annotated.annotations(frame)
        return self.kept.marks[frame.token]


class _Kept:
    """What was read of one scene."""

    def __init__(self) -> None:
        self.images: dict[Path, NDArray[np.uint8]] = {}
        self.points: dict[Path, NDArray[np.float32]] = {}
        self.marks: dict[str, Annotations] = {}


def times_scaled(factor: float) -> Change:
    """Times so many times as large, as if they were in another unit."""

    def changed(frame: Frame) -> Frame:
        frame = each_sweep(frame, lambda s: replace(s, timestamp_us=round(s.timestamp_us * factor)))
        return replace(
            frame,
            timestamp_us=round(frame.timestamp_us * factor),
            cameras=tuple(
                replace(v, timestamp_us=round(v.timestamp_us * factor)) for v in frame.cameras
            ),
        )

    return lambda frames: tuple(map(changed, frames))


def unchanged(frames: Frames) -> Frames:
    return frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fault.

    Attributes:
        what: was done to the log.
        names: causes that say so.
    """

    what: str
    names: tuple[str, ...]
    change: Change = unchanged
    intensity: float = 1.0


T_CAMERA_BODY = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], np.float64)
FRONT, BACK, LEFT, RIGHT = "CAM_FRONT", "CAM_BACK", "CAM_FRONT_LEFT", "CAM_BACK_RIGHT"
SWAPPED = f"{RIGHT} and {LEFT} swapped"
CASES = (
    Case(what="LiDAR turned 2 degrees", names=("LiDAR turned",), change=lidar_turned(2, 2)),
    Case(what="LiDAR turned 4 degrees", names=("LiDAR turned",), change=lidar_turned(2, 4)),
    Case(what="LiDAR tilted 2 degrees (x)", names=("LiDAR tilted",), change=lidar_turned(0, 2)),
    Case(what="LiDAR tilted 2 degrees (y)", names=("LiDAR tilted",), change=lidar_turned(1, 2)),
    Case(
        what="LiDAR 0.15 m sideways and up",
        names=("LiDAR height",),
        change=lidar_moved(left_m=0.15, up_m=0.15),
    ),
    Case(
        what="CAM_BACK 2 degrees up",
        names=(f"{BACK} turned",),
        change=camera_turned(BACK, 0, 2),
    ),
    Case(
        what="CAM_FRONT 2 degrees sideways",
        names=(f"{FRONT} turned",),
        change=camera_turned(FRONT, 1, 2),
    ),
    Case(
        what="CAM_BACK 4 degrees sideways",
        names=(f"{BACK} turned",),
        change=camera_turned(BACK, 1, 4),
    ),
    *(
        Case(
            what=f"focal length {factor:.2f} of {name or 'all'}",
            names=(f"focal length of {name or 'all'}",),
            change=focal_length_scaled(factor, name),
        )
        for name in (BACK, None)
        for factor in (1.05, 1.1)
    ),
    *(
        Case(
            what=f"focal length {factor:g} of all",
            names=("focal length of all",),
            change=focal_length_scaled(factor),
        )
        for factor in (0.5, 2)
    ),
    Case(
        what="extrinsics of the cameras inverted",
        names=("camera extrinsics inverted",),
        change=cameras_mounted(inverse),
    ),
    Case(
        what="cameras' axes X forward, Y left, Z up",
        names=("camera axes",),
        change=cameras_mounted(lambda T: T @ T_CAMERA_BODY),
    ),
    Case(
        what="cameras' axes as in OpenGL",
        names=("camera axes",),
        change=cameras_mounted(lambda T: T @ np.diag([1.0, -1.0, -1.0, 1.0])),
    ),
    Case(
        what="extrinsics of the LiDAR inverted",
        names=("LiDAR inverted", "LiDAR height"),
        change=lidar_inverted(),
    ),
    *(
        Case(what=f"cameras {s} s late", names=("cameras late",), change=cameras_late(s))
        for s in (0.1, 0.3)
    ),
    Case(what="two cameras swapped", names=(SWAPPED,), change=cameras_swapped(LEFT, RIGHT)),
    Case(what="poses 0.1 s late", names=(), change=poses_delayed(0.1)),
    Case(what="poses 0.3 s late", names=(), change=poses_delayed(0.3)),
    Case(what="poses with noise 0.2 m, 0.5 degrees", names=(), change=poses_noisy(0.2, 0.5)),
    Case(what="poses with noise 0.5 m, 1 degree", names=(), change=poses_noisy(0.5, 1.0)),
    Case(what="times in ns", names=("times in nanoseconds",), change=times_scaled(1e3)),
    Case(what="times in ms", names=("times in milliseconds",), change=times_scaled(1e-3)),
    Case(what="intensity 0..1", names=("intensity 0..1",), intensity=1 / 255),
)


@dataclass(slots=True, kw_only=True)
class Count:
    """Scenes of a case, and of these: with a bad finding, with a right name, with a wrong one."""

    scenes: int = 0
    alarms: int = 0
    right: int = 0
    wrong: int = 0
    wrong_findings: list[str] = field(default_factory=list)

    def add(self, findings: Sequence[Finding], names: tuple[str, ...]) -> list[str]:
        bad = [f.text for f in findings if f.bad]
        named = {name for text in bad for name in named_causes(text)}
        self.scenes += 1
        self.alarms += bool(bad)
        self.right += bool(named & set(names))
        self.wrong += bool(named - set(names))
        self.wrong_findings += [text for text in bad if set(named_causes(text)) - set(names)]
        return bad


def named_causes(text: str) -> list[str]:
    """What a finding names as the cause."""
    if "cause is not told" in text:
        return []
    return [m.expand(name) for pattern, name in CAUSES.items() if (m := re.search(pattern, text))]


def main() -> int:
    parser = reporting.parser(__doc__)
    parser.add_argument("--cities", type=Path, default=Path("runs/checks"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[])
    parser.add_argument("--medium", type=int, nargs="*", default=[])
    parser.add_argument("--city", type=Path, nargs="*", default=[])
    parser.add_argument("--folder", type=Path, nargs="*", default=[])
    parser.add_argument("--nuscenes", type=Path, nargs="*", default=[])
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if chosen := sorted({*args.seeds, *args.medium} & set(CHOSEN_ON)):
        parser.error(f"the thresholds were chosen on the city of seed {chosen[0]}")
    begin = time.monotonic()
    logs = [("city", city(args.cities, seed, (96, 256))) for seed in args.seeds]
    logs += [("city", city(args.cities, seed, (225, 400))) for seed in args.medium]
    logs += [("city", root) for root in args.city]
    logs += [("folder", root) for root in args.folder]
    logs += [("nuscenes", root) for root in args.nuscenes]
    clean: dict[str, Count] = {}
    faults = {case.what: Count() for case in CASES}
    logs_clean, logs_faulty = Count(), {case.what: Count() for case in CASES}
    alarms: list[dict[str, object]] = []
    k = 0
    for kind, root in logs:
        source = open_source(kind, root, past_sweeps=20, future_sweeps=20)
        count = clean.setdefault(root.name, Count())
        evidence: dict[str, list[Mapping[str, CameraEvidence]]] = {}
        for scene_id in tqdm(source.scene_ids("all"), desc=root.name):
            cache = _Kept()
            checked = check_scene(CheckedLog(source, unchanged, 1.0, cache), scene_id, 20)
            if bad := count.add(checked.findings, ()):
                alarms.append({"log": root.name, "scene": scene_id, "findings": bad})
            evidence.setdefault("", []).append(checked.cameras)
            if kind == "city" and k % args.every == 0:
                for case in CASES:
                    log = CheckedLog(source, case.change, case.intensity, cache)
                    faulty = check_scene(log, scene_id, 20)
                    faults[case.what].add(faulty.findings, case.names)
                    evidence.setdefault(case.what, []).append(faulty.cameras)
            k += kind == "city"
        judged = {fault: [e for e in scenes if e] for fault, scenes in evidence.items()}
        if bad := logs_clean.add(camera_findings(judged.pop("", [])), ()):
            alarms.append({"log": root.name, "scene": "all together", "findings": bad})
        for case in CASES:
            if scenes := judged.get(case.what):
                logs_faulty[case.what].add(camera_findings(scenes), case.names)
    result = {
        **reporting.stamp(),
        "minutes": round((time.monotonic() - begin) / 60, 1),
        "chosen_on_seeds": list(CHOSEN_ON),
        "seeds": args.seeds,
        "medium_seeds": args.medium,
        "cities": [root.name for root in args.city],
        "clean": {name: asdict(count) for name, count in clean.items()},
        "faults": {name: asdict(count) for name, count in faults.items()},
        "clean_logs": asdict(logs_clean),
        "faulty_logs": {name: asdict(count) for name, count in logs_faulty.items()},
        "false_alarms": alarms,
    }
    write_json(args.out.with_suffix(".json"), result)
    text = table(result["date"], result["machine"], clean, faults)
    text += logs_table(logs_clean, logs_faulty)
    write_text(args.out.with_suffix(".md"), text)
    print(text)
    reporting.print_files(args.out.with_suffix(".json"), args.out.with_suffix(".md"))
    return 0


def city(folder: Path, seed: int, size: tuple[int, int]) -> Path:
    height, width = size
    config = CityConfig(
        labeled_scenes=0,
        unlabeled_scenes=SCENES,
        val_scenes=0,
        frames_per_scene=FRAMES,
        seed=seed,
        image_height=height,
        image_width=width,
    )
    root = folder / f"city-{seed}"
    if not (root / MARKER).is_file():
        generate_city(root, config, workers=1)
    return root


def table(date: object, machine: object, clean: dict[str, Count], faults: dict[str, Count]) -> str:
    """The counts as Markdown."""
    scenes = sum(c.scenes for c in clean.values())
    false = sum(c.alarms for c in clean.values())
    rows: list[tuple[str, int, object]] = [(name, c.scenes, c.alarms) for name, c in clean.items()]
    rows.append(("all", scenes, f"{false} ({100 * false / max(scenes, 1):.1f} %)"))
    lines = [
        "# What the check of a log finds",
        "",
        f"`scripts/benchmarks/log_checks.py`, {date}, {machine}. Thresholds chosen on the built-in "
        f"city, seeds {', '.join(map(str, CHOSEN_ON))}; none of these is below. How far a street "
        "may fall to one side was set after the real logs had been called tilted, so for that "
        "figure they are no test.",
        "",
        "## Clean scenes",
        "",
        reporting.markdown_table(["log", "scenes", "false alarms"], rows),
        "",
        "## Faults, on city scenes",
        "",
        fault_table("scenes", faults),
        "",
        "Delayed and noisy poses have no name of their own here (the audit names them): an alarm "
        "says that static structure does not stay in place.",
    ]
    return "\n".join(lines) + "\n"


def fault_table(unit: str, faults: Mapping[str, Count]) -> str:
    """A row a fault."""
    rows = [(name, c.scenes, c.alarms, c.right, c.wrong) for name, c in faults.items()]
    return reporting.markdown_table(["fault", unit, "alarms", "right name", "wrong name"], rows)


def logs_table(clean: Count, faults: dict[str, Count]) -> str:
    """Counts of logs, of whose cameras all scenes tell together, as Markdown."""
    lines = [
        "",
        "## Cameras, all scenes of a log together",
        "",
        f"Of {clean.scenes} clean logs {clean.alarms} raise an alarm. Of cities with a fault "
        "(those of their scenes in which poses and LiDAR are not called bad):",
        "",
        fault_table("cities", {name: c for name, c in faults.items() if c.scenes}),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(exit_code(main))
