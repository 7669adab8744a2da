"""Draw ``Scene3D``s with Open3D and no display, in a process of its own.

Where the graphics driver is missing or broken, Open3D may raise, hang or end in a segfault, and it
prints a banner of its own. A separate process turns all of that into "it did not work", and the
caller draws the scene itself. The process goes on drawing until it is closed: a video starts one.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from viz.render.open3d_geometry import open3d_background, open3d_lines, open3d_mesh, open3d_points
from viz.render.scene3d import BACKGROUND, VERTICAL_FOV_DEG, Scene3D

TIMEOUT_S = 90.0
_DRAWN = "image drawn"


class Open3DProcess:
    """A process that draws one scene after the other. Starts with the first; use as a context
    manager."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._failure = ""

    def __enter__(self) -> Open3DProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._stop(self._process)
        self._folder.cleanup()

    def draw(self, scene: Scene3D, *, width: int, height: int) -> Image.Image | str:
        """Draw a scene.

        Returns:
            The image, or one line that says why Open3D cannot draw on this machine; it is not
            asked again.
        """
        if self._failure:
            return self._failure
        folder = Path(self._folder.name)
        scene.save(folder / "scene.npz")
        drawn = folder / "image.png"
        drawn.unlink(missing_ok=True)
        try:
            if self._process is None:
                self._process = self._start()
            self._failure = self._ask(self._process, f"{width} {height}")
        except OSError as error:
            self._failure = f"cannot start Python: {error}"
        if self._failure:
            return self._failure
        with Image.open(drawn) as image:
            return image.convert("RGB")

    def _start(self) -> subprocess.Popen[str]:
        folder = self._folder.name
        root = str(Path(__file__).resolve().parents[2])
        inherited = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([root, inherited]) if inherited else root
        with (Path(folder) / "errors.txt").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "viz.render.offscreen", folder],
                cwd=folder,  # -m puts the current folder first on the path: never viz/ itself
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="replace",
            )
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.put(line.strip())
        self._lines.put(None)

    def _ask(self, process: subprocess.Popen[str], what: str) -> str:
        """Have the scene in the folder drawn. Returns why that failed, or nothing."""
        assert process.stdin is not None
        try:
            process.stdin.write(what + "\n")
            process.stdin.flush()
            while (line := self._lines.get(timeout=TIMEOUT_S)) != _DRAWN:
                if line is None:
                    return self._last_words(process)
        except queue.Empty:
            self._stop(process)
            return f"no answer within {TIMEOUT_S:.0f} s"
        except OSError:  # it ended before it read
            return self._last_words(process)
        return ""

    def _last_words(self, process: subprocess.Popen[str]) -> str:
        code = process.wait()
        if code < 0:
            return f"it died of signal {-code}"
        text = (Path(self._folder.name) / "errors.txt").read_text(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit code {code}"

    def _stop(self, process: subprocess.Popen[str]) -> None:
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _serve(folder: Path) -> None:
    """Draw the scene in the folder as often as a line "width height" comes in."""
    from open3d.visualization import rendering

    renderer: Any = None
    size = ""
    for line in sys.stdin:
        if line != size:
            width, height = (int(n) for n in line.split())
            renderer = None  # of two at once the engine dies
            renderer, size = rendering.OffscreenRenderer(width, height), line
            view = renderer.scene.view
            view.set_post_processing(False)  # colors come out as given
            # software rendering spends nine tenths of its time on these
            view.set_antialiasing(False)
            view.set_ambient_occlusion(False)
            view.set_shadowing(False)
            renderer.scene.set_background(open3d_background(BACKGROUND))
        scene = Scene3D.load(folder / "scene.npz")
        _draw(renderer, scene, rendering)
        pixels = np.asarray(renderer.render_to_image())[..., :3]
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / "image.png")
        print(_DRAWN, flush=True)


def _draw(renderer: Any, scene: Scene3D, rendering: Any) -> None:
    renderer.scene.clear_geometry()
    things = [
        *(("defaultUnlit", open3d_mesh(mesh)) for mesh in scene.meshes),
        *(("unlitLine", open3d_lines(scene.in_front(lines))) for lines in scene.lines),
        *(("defaultUnlit", open3d_points(scene.in_front(points))) for points in scene.points),
    ]
    for i, (shader, thing) in enumerate(things):
        material = rendering.MaterialRecord()
        material.shader = shader
        material.point_size, material.line_width = 1.5, 1.5
        renderer.scene.add_geometry(str(i), thing, material)
    renderer.setup_camera(VERTICAL_FOV_DEG, scene.target_m, scene.eye_m, [0.0, 0.0, 1.0])


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
