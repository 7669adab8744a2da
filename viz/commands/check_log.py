"""Check a log before labeling it."""

from __future__ import annotations

import argparse
from collections import Counter

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tqdm import tqdm

from datasets.annotations import AnnotatedSource
from datasets.cli.logs import log_words, open_log
from datasets.cli.next_step import print_next_job
from datasets.cli.scenes import scenes_of
from datasets.errors import SetupError
from datasets.files.printable import printable
from datasets.files.replacing import replacing
from datasets.frames import CameraView, Frame, SceneSource, points_in_ego
from datasets.log_checks.cameras import added, camera_findings
from datasets.log_checks.ground import spread
from datasets.log_checks.motion import Finding
from datasets.log_checks.projection import project
from datasets.log_checks.scene import check_scene, counted
from datasets.names import fault_of_scene_id
from datasets.sources.waymo.classes import panoptic_counts
from datasets.sources.waymo.source import WaymoSource
from viz.render.boxes import draw_boxes
from viz.render.text import TEXT, font

SWEEPS = 20
TILE_WIDTH_PX = 800
NEAR_M, FAR_M = 2.0, 60.0
SHOWN = 20


def run(args: argparse.Namespace) -> int:
    """Check and print; gives the exit code. Raises ``SetupError``."""
    if not args.root.is_dir():
        raise SetupError(f"{args.root}: no such folder")

    source = open_log(args, past_sweeps=SWEEPS, future_sweeps=SWEEPS)
    scene_ids = scenes_of(source, args.scene or "all", root=args.root)
    bad = 0
    judged = []
    for scene_id in scene_ids:
        print(f"\nscene {printable(scene_id)}")
        checked = check_scene(
            source, scene_id, args.frames, lambda frames: tqdm(frames, desc="read", leave=False)
        )
        if checked.cameras:
            judged.append(checked.cameras)
        rows = checked.rows
        if rows and (pixels := image_classes(source, scene_id, args.frames)):
            rows = [*rows, ("labeled pixels", counted(pixels))]
        for name, text in rows:
            print(printable(f"  {name:<20} {text}"))
        bad += report(scene_id, checked.findings)
    if len(judged) > 1:
        print(f"\n{len(judged)} scenes together")
        for name, evidence in sorted(added(judged).items()):
            print(printable(f"  {name:<20} {evidence}"))
        bad += report("all scenes", camera_findings(judged))
    if args.image:
        first = next((s for s in scene_ids if not fault_of_scene_id(s)), scene_ids[0])
        frames = source.scene(first).frames
        with replacing(args.image) as partial:
            draw(source, frames[len(frames) // 2]).save(partial)
        print(f"image: {args.image}")
    n = len(scene_ids)
    print(
        f"{n} {'scene' if n == 1 else 'scenes'} checked: "
        + (f"{bad} bad findings" if bad else "nothing bad")
    )
    print_next_job(*log_words(args), "--split", "all")
    return 1 if bad else 0


def image_classes(source: SceneSource, scene_id: str, limit: int) -> Counter[str]:
    """Pixels of each class in a scene's panoptic labels, which only Waymo has."""
    pixels: Counter[str] = Counter()
    if isinstance(source, WaymoSource):
        frames = source.scene(scene_id).frames
        for k in spread(len(frames), limit or len(frames)):
            for view in frames[k].cameras:
                if (label := source.panoptic(view)) is not None:
                    pixels.update(panoptic_counts(label[0]))
    return pixels


def report(scene_id: str, findings: list[Finding]) -> int:
    """Print them, worst first; how many are bad."""
    counts = Counter(f.bad for f in findings)
    for finding in sorted(findings, key=lambda f: not f.bad)[:SHOWN]:
        at = f" (frame {finding.frame})" if finding.frame else ""
        kind = "BAD " if finding.bad else "note"
        print(printable(f"  {kind} {scene_id}{at}: {finding.text}"))
    if len(findings) > SHOWN:
        print(f"  ... {len(findings) - SHOWN} more findings")
    print(f"  {counts[True]} bad, {counts[False]} notes")
    return counts[True]


def draw(source: AnnotatedSource, frame: Frame) -> Image.Image:
    """Every image of a frame with its boxes and the key sweep's points, colored by depth."""
    if not frame.cameras:
        raise SetupError(f"frame {frame.token}: --image needs cameras")
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
    points: NDArray[np.float32] | None, view: CameraView, image: Image.Image
) -> Image.Image:
    scale = TILE_WIDTH_PX / view.width
    tile = image.resize((TILE_WIDTH_PX, round(view.height * scale)))
    label = view.name
    if points is not None:
        label += f": red {NEAR_M:.0f} m to blue {FAR_M:.0f} m"
        uv, depth, inside = project(points, view)
        order = np.flatnonzero(inside)[np.argsort(-depth[inside])]  # near points over far ones
        shade = np.log(np.clip(depth[order], NEAR_M, FAR_M) / NEAR_M) / np.log(FAR_M / NEAR_M)
        colors = (255 * matplotlib.colormaps["turbo_r"](shade)[:, :3]).astype(np.uint8)
        pixels = np.array(tile)
        at = np.minimum((uv[order] * scale).astype(int), [tile.width - 2, tile.height - 2])
        for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
            pixels[at[:, 1] + dy, at[:, 0] + dx] = colors
        tile = Image.fromarray(pixels)
    pen, face = ImageDraw.Draw(tile), font(18, bold=True)
    pen.rectangle((0, 0, face.getlength(label) + 12, 28), fill=(0, 0, 0))
    pen.text((6, 3), label, font=face, fill=TEXT)
    return tile
