"""Frames of a scene as a video of screenshots: ``.mp4`` or ``.gif``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from datasets.errors import SetupError
from datasets.files.replacing import replacing
from viz.render.layers import LayerSettings
from viz.render.renderer import Renderer, ViewPainter
from viz.render.screenshot import screenshot
from viz.session.session import ReviewSession

SUFFIXES = (".mp4", ".gif")
CODECS = {"vp09": "", "mp4v": "OpenCV has no VP9 here: browsers do not play this video"}
"""Codecs of an mp4, the first that OpenCV has is taken, and what is to be said of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoSummary:
    """How many frames a video has, what drew their 3D views, and what was not as it should be."""

    n_frames: int
    drawn_by: str
    notes: tuple[str, ...]


def video(
    session: ReviewSession,
    scene_id: str,
    frames: range,
    *,
    show: LayerSettings,
    size_px: tuple[int, int],
    fps: float,
    renderer: Renderer,
    out: Path,
) -> VideoSummary:
    """Write a video of the frames, with a progress bar. ``out`` is there only when it is whole.

    The images of an mp4 have even sides: an odd one is a pixel shorter. Its codec is VP9, which
    browsers play, or MPEG-4 part 2 where OpenCV has no VP9.

    Args:
        out: a path that ends in .mp4 or .gif.

    Raises:
        SetupError: there are no such frames, another file name, the video cannot be written, or
            Open3D was asked for and cannot draw on this machine.
        SceneError: a frame's labels cannot be read.
        ValueError: ``fps`` is not positive.
    """
    if not fps > 0:
        raise ValueError(f"a video needs a positive number of frames per second, got {fps}")
    suffix = out.suffix.lower()
    if suffix not in SUFFIXES:
        raise SetupError(f"{out}: a video's name must end in {' or '.join(SUFFIXES)}")
    n_frames = session.n_frames(scene_id)
    if not frames or not 0 <= min(frames) <= max(frames) < n_frames:
        raise SetupError(
            f"{session.labels.header.what}: scene {scene_id} has frames 0..{n_frames - 1}, "
            f"asked for {_in_words(frames)}"
        )
    width, height = size_px
    if suffix == ".mp4":
        width, height = width // 2 * 2, height // 2 * 2
    write = _write_mp4 if suffix == ".mp4" else _write_gif
    try:
        with ViewPainter(renderer) as painter, replacing(out) as partial:

            def images() -> Iterator[Image.Image]:
                for k in tqdm(frames, desc="video", unit="frame"):
                    frame = session.frame(scene_id, k)
                    shot = screenshot(frame, show=show, size_px=(width, height), renderer=painter)
                    yield shot.image

            codec_note = write(partial, images(), (width, height), fps)
        notes = tuple(note for note in (painter.note, codec_note) if note)
        return VideoSummary(n_frames=len(frames), drawn_by=painter.drawn_by, notes=notes)
    except OSError as error:
        raise SetupError(f"{out}: cannot be written: {error.strerror or error}") from error


def _write_mp4(
    path: Path, images: Iterator[Image.Image], size_px: tuple[int, int], fps: float
) -> str:
    """Write with the best codec there is; what is to be said of it."""
    try:
        import cv2
    except ImportError as error:
        raise SetupError(f"{path}: OpenCV does not load ({error}); a .gif needs none") from error
    writers = (
        (cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size_px), note)
        for codec, note in CODECS.items()
    )
    writer, note = next((pair for pair in writers if pair[0].isOpened()), (None, ""))
    if writer is None:
        raise SetupError(f"{path}: OpenCV cannot write a video there; try a .gif")
    try:
        for image in images:
            writer.write(np.ascontiguousarray(np.asarray(image)[..., ::-1]))
    finally:
        writer.release()
    if not _is_whole_mp4(path):  # OpenCV does not say so
        raise OSError("the video is cut off")
    return note


def _is_whole_mp4(path: Path) -> bool:
    """Whether the file consists of MP4 boxes up to its end, images and their table among them."""
    if not path.is_file():
        return False
    kinds, offset, size = set(), 0, path.stat().st_size
    with path.open("rb") as file:
        while offset < size:
            file.seek(offset)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if length < 8:
                return False
            kinds.add(head[4:8])
            offset += length
    return offset == size and {b"mdat", b"moov"} <= kinds


def _write_gif(
    path: Path, images: Iterator[Image.Image], size_px: tuple[int, int], fps: float
) -> str:
    reduced = (image.quantize(256) for image in images)
    first = next(reduced)
    duration_ms = max(20, round(1000 / fps))
    first.save(path, save_all=True, append_images=reduced, duration=duration_ms, loop=0)
    return ""


def _in_words(frames: range) -> str:
    return f"{frames.start}:{frames.stop}"
