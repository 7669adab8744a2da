"""Check a log before labelling it: what is missing, damaged or implausible.

    python scripts/check_log.py DIR
    python scripts/check_log.py DIR --scene drive-07 --picture overlay.png
    python scripts/check_log.py DIR --source nuscenes --frames 0

Per scene: files there and readable, times, poses, whether static structure stays in place under
the stated poses and LiDAR extrinsics (and how much less without them), height of the ground,
whether depth edges of the LiDAR lie on edges of each picture, and what boxes and picture labels
there are. --picture draws a frame's LiDAR and boxes over its cameras: points, coloured by depth,
must sit on what they hit.

Exit codes: 0 nothing bad found, 1 something missing or implausible, 2 the log cannot be opened.

The folder of one's own log (--source folder), in short; datasets/sources/folder.py has all of it:

  log.json                      {"format": "autolabel-folder", "version": 1, "name": "my-log",
                                 "licence": "ours"}
  scenes/<id>/scene.json        cameras, lidars, sweeps and frames with their poses and files
  scenes/<id>/annotations.json  boxes (optional)
  pictures as Pillow reads them; points as .npz (points (N, 4) float32), .bin (float32) or .ply
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tqdm import tqdm

from datasets.annotations import AnnotatedSource
from datasets.commands import exit_code, scenes_of
from datasets.errors import SceneError, SetupError
from datasets.frames import CameraView, Frame, SceneSource, points_in_ego
from datasets.log_checks import (
    MAX_GROUND_OFF_M,
    CameraAgreement,
    Finding,
    StaticAgreement,
    camera_agreement,
    check_motion,
    check_times,
    columns,
    ground_height_m,
    pairs_to_compare,
    project,
    speeds_m_s,
    spread,
    static_agreement,
    sweeps_of,
)
from datasets.names import fault_of_scene_id
from datasets.sources.opening import SOURCES, open_source
from datasets.sources.waymo.classes import panoptic_counts
from datasets.sources.waymo.source import WaymoSource
from viz.boxes import draw_boxes
from viz.lettering import TEXT, font

SWEEPS = 20
PAIRS = 10
TILE_WIDTH_PX = 800
NEAR_M, FAR_M = 2.0, 60.0
SHOWN = 20


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("root", type=Path, metavar="DIR", help="the log")
    parser.add_argument("--source", choices=SOURCES, default="folder")
    parser.add_argument("--scene", help="only this scene")
    parser.add_argument(
        "--frames", type=int, default=20, help="open files of so many (0: all, and all sweeps)"
    )
    parser.add_argument(
        "--picture", type=Path, metavar="PNG", help="draw LiDAR and boxes over the cameras"
    )
    args = parser.parse_args()
    if args.frames < 0:
        parser.error(f"--frames must not be negative, got {args.frames}")
    if not args.root.is_dir():
        raise SetupError(f"{args.root}: no such folder")

    source = open_source(args.source, args.root, past_sweeps=SWEEPS, future_sweeps=SWEEPS)
    scene_ids = scenes_of(source, args.scene or "all", root=args.root)
    bad = 0
    together: dict[str, CameraAgreement] = {}
    for scene_id in scene_ids:
        findings, cameras = check_scene(source, scene_id, args.frames)
        for name, agreement in cameras.items():
            together[name] = together.get(name, CameraAgreement()) + agreement
        bad += report(scene_id, findings)
    if len(scene_ids) > 1 and together:
        print("\nall scenes together")
        for name, agreement in sorted(together.items()):
            print(f"  {name:<20} {agreement}")
        bad += report("all scenes", [f for n, c in together.items() for f in c.findings(n)])
    if args.picture:
        first = next((s for s in scene_ids if not fault_of_scene_id(s)), scene_ids[0])
        frames = source.scene(first).frames
        args.picture.parent.mkdir(parents=True, exist_ok=True)
        draw(source, frames[len(frames) // 2]).save(args.picture)
        print(f"picture: {args.picture}")
    print(f"{len(scene_ids)} scenes checked: " + (f"{bad} bad findings" if bad else "nothing bad"))
    return 1 if bad else 0


def check_scene(
    source: AnnotatedSource, scene_id: str, limit: int
) -> tuple[list[Finding], dict[str, CameraAgreement]]:
    """All checks of one scene, and each camera's figures; prints its table."""
    print(f"\nscene {scene_id}")
    try:
        frames = source.scene(scene_id).frames
    except SceneError as error:
        return [Finding(bad=True, text=str(error))], {}
    opened = [frames[k] for k in spread(len(frames), limit or len(frames))]
    findings = [*check_times(frames), *check_motion(frames)]
    pairs = pairs_to_compare(frames, PAIRS)
    cameras: dict[str, CameraAgreement] = {}
    structure: dict[str, NDArray[np.float64]] = {}
    heights: list[float] = []
    boxes: Counter[str] = Counter()
    pixels: Counter[str] = Counter()
    marked = 0
    tokens = {f.token for f in opened} | {f.token for pair in pairs for f in pair}
    missing = missing_files(frames)
    findings += [Finding(bad=True, text=f"missing file: {path}") for path in missing]
    for frame in tqdm([f for f in frames if f.token in tokens], desc="read", leave=False):
        points, read_findings = read_frame(source, frame, cameras)
        findings += read_findings
        try:
            marks = source.annotations(frame)
            boxes.update(source.taxonomy.names[box.class_id] for box in marks.boxes)
            marked += marks.point_classes is not None
            pixels.update(picture_classes(source, frame))
        except SceneError as error:
            findings.append(Finding(bad=True, frame=frame.token, text=str(error)))
        if points is not None:
            structure[frame.token] = columns(points)
            if (height := ground_height_m(points)) is not None:
                heights.append(height)
    others = {s.path: s for f in opened for s in (sweeps_of(f) if not limit else f.past_sweeps[:1])}
    for path in others.keys() - {f.lidar.path for f in opened if f.lidar} - set(missing):
        try:
            source.read_points(others[path])
        except SceneError as error:
            findings.append(Finding(bad=True, text=str(error)))
    static = sum(
        (
            static_agreement(a, b, structure[a.token], structure[b.token])
            for a, b in pairs
            if a.token in structure and b.token in structure
        ),
        StaticAgreement(),
    )
    n_sweeps = len({s.path for f in frames for s in sweeps_of(f)})
    if n_sweeps:
        findings += static.findings()
    if heights and abs(ground := float(np.median(heights))) > MAX_GROUND_OFF_M:
        text = f"the ground lies at z = {ground:+.2f} m of the vehicle frame (should be near 0)"
        findings.append(Finding(bad=True, text=text))
    for name, agreement in cameras.items():
        findings += agreement.findings(name)

    seconds = (frames[-1].timestamp_us - frames[0].timestamp_us) * 1e-6
    speeds = speeds_m_s(frames)
    rows = [
        ("frames", f"{len(frames)} over {seconds:.1f} s; files of {len(tokens)} were opened"),
        ("sensors", f"{len(frames[0].cameras)} cameras, {n_sweeps} LiDAR sweeps"),
        ("missing files", str(len(missing))),
        ("annotations", f"{boxes.total()} boxes, classes of points in {marked} frames"),
    ]
    rows += [(what, counted(c)) for what, c in (("boxes", boxes), ("labelled pixels", pixels)) if c]
    if len(speeds):
        rows.append(("speed", f"{speeds.min():.1f} to {speeds.max():.1f} m/s"))
    if heights:
        rows.append(("ground", f"z = {np.median(heights):+.2f} m"))
    if n_sweeps:
        rows.append(("static structure", str(static)))
    rows += [(name, str(agreement)) for name, agreement in sorted(cameras.items())]
    for name, text in rows:
        print(f"  {name:<20} {text}")
    return findings, cameras


def picture_classes(source: SceneSource, frame: Frame) -> Counter[str]:
    """Pixels of each class in a frame's panoptic labels, which only Waymo has."""
    pixels: Counter[str] = Counter()
    if isinstance(source, WaymoSource):
        for view in frame.cameras:
            if (label := source.panoptic(view)) is not None:
                pixels.update(panoptic_counts(label[0]))
    return pixels


def counted(counts: Counter[str]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in counts.most_common())


def missing_files(frames: tuple[Frame, ...]) -> list[Path]:
    paths = {v.path for f in frames for v in f.cameras} | {
        s.path for f in frames for s in sweeps_of(f)
    }
    return sorted(p for p in paths if not p.exists())


def read_frame(
    source: SceneSource, frame: Frame, cameras: dict[str, CameraAgreement]
) -> tuple[NDArray[np.float32] | None, list[Finding]]:
    """Points of the key sweep in the ego frame, and what cannot be read; adds to ``cameras``."""
    findings = []
    points = None
    try:
        if frame.lidar is not None:
            points = points_in_ego(source, frame)
    except SceneError as error:
        findings.append(Finding(bad=True, frame=frame.token, text=str(error)))
    for view in frame.cameras:
        try:
            rgb = source.read_image(view)
        except SceneError as error:
            findings.append(Finding(bad=True, frame=frame.token, text=str(error)))
            continue
        if points is not None:
            so_far = cameras.get(view.name, CameraAgreement())
            cameras[view.name] = so_far + camera_agreement(points, view, rgb)
    return points, findings


def report(scene_id: str, findings: list[Finding]) -> int:
    """Print them, worst first; how many are bad."""
    counts = Counter(f.bad for f in findings)
    for finding in sorted(findings, key=lambda f: not f.bad)[:SHOWN]:
        at = f" (frame {finding.frame})" if finding.frame else ""
        print(f"  {'BAD ' if finding.bad else 'note'} {scene_id}{at}: {finding.text}")
    if len(findings) > SHOWN:
        print(f"  ... {len(findings) - SHOWN} more findings")
    print(f"  {counts[True]} bad, {counts[False]} notes")
    return counts[True]


def draw(source: AnnotatedSource, frame: Frame) -> Image.Image:
    """Every picture of a frame with its boxes and the key sweep's points, coloured by depth."""
    if not frame.cameras:
        raise SetupError(f"frame {frame.token}: --picture needs cameras")
    boxes = source.annotations(frame).boxes
    points = points_in_ego(source, frame) if frame.lidar else None
    tiles = []
    for view in frame.cameras:
        marked = draw_boxes(source.read_image(view), view, boxes, source.taxonomy)
        tiles.append(draw_view(points, view, marked))
    across = min(3, len(tiles))
    down = -(-len(tiles) // across)
    height = max(tile.height for tile in tiles)
    canvas = Image.new("RGB", (across * TILE_WIDTH_PX, down * height))
    for i, tile in enumerate(tiles):
        canvas.paste(tile, ((i % across) * TILE_WIDTH_PX, (i // across) * height))
    return canvas


def draw_view(
    points: NDArray[np.float32] | None, view: CameraView, picture: Image.Image
) -> Image.Image:
    scale = TILE_WIDTH_PX / view.width
    tile = picture.resize((TILE_WIDTH_PX, round(view.height * scale)))
    label = view.name
    if points is not None:
        label += f": red {NEAR_M:.0f} m to blue {FAR_M:.0f} m"
        uv, depth, inside = project(points, view)
        order = np.flatnonzero(inside)[np.argsort(-depth[inside])]  # near points over far ones
        shade = np.log(np.clip(depth[order], NEAR_M, FAR_M) / NEAR_M) / np.log(FAR_M / NEAR_M)
        colours = (255 * matplotlib.colormaps["turbo_r"](shade)[:, :3]).astype(np.uint8)
        pixels = np.array(tile)
        at = np.minimum((uv[order] * scale).astype(int), [tile.width - 2, tile.height - 2])
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            pixels[at[:, 1] + dy, at[:, 0] + dx] = colours
        tile = Image.fromarray(pixels)
    pen, face = ImageDraw.Draw(tile), font(18, bold=True)
    pen.rectangle((0, 0, face.getlength(label) + 12, 28), fill=(0, 0, 0))
    pen.text((6, 3), label, font=face, fill=TEXT)
    return tile


if __name__ == "__main__":
    sys.exit(exit_code(main))
