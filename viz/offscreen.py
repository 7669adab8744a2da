"""Draw a ``Scene3D`` with Open3D and no display, in a process of its own.

Where the graphics driver is missing or broken, Open3D may raise, hang or end in a segfault, and it
prints a banner of its own. A separate process turns all of that into "it did not work", and the
caller draws the scene itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from viz.open3d_mesh import open3d_background, open3d_mesh
from viz.scene3d import BACKGROUND, POINT_COLOUR, VERTICAL_FOV_DEG, Scene3D

TIMEOUT_S = 90.0


def draw_open3d(scene: Scene3D, *, width: int, height: int) -> Image.Image | str:
    """Draw the scene.

    Returns:
        The picture, or one line that says why Open3D cannot draw on this machine.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene.save(folder / "scene.npz")
        root = str(Path(__file__).resolve().parent.parent)
        inherited = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([root, inherited]) if inherited else root
        try:
            done = subprocess.run(
                [sys.executable, "-m", "viz.offscreen", name, str(width), str(height)],
                cwd=name,  # -m puts the current folder first on the path: never viz/ itself
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {TIMEOUT_S:.0f} s"
        except OSError as error:
            return f"cannot start Python: {error}"
        if done.returncode < 0:
            return f"it died of signal {-done.returncode}"
        picture = folder / "picture.png"
        if done.returncode or not picture.is_file():
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            return lines[-1].strip() if lines else f"exit code {done.returncode}"
        with Image.open(picture) as image:
            return image.convert("RGB")


def _draw(folder: Path, width: int, height: int) -> None:
    import open3d as o3d
    from open3d.visualization import rendering

    scene = Scene3D.load(folder / "scene.npz")
    renderer = rendering.OffscreenRenderer(width, height)
    renderer.scene.view.set_post_processing(False)  # colours come out as given
    renderer.scene.set_background(open3d_background(BACKGROUND))
    material = rendering.MaterialRecord()
    material.shader = "defaultUnlit"
    for i, mesh in enumerate(scene.meshes):
        renderer.scene.add_geometry(f"{i} {mesh.name}", open3d_mesh(mesh), material)
    points = scene.lifted_points()
    if len(points):
        cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.astype(np.float64)))
        cloud.paint_uniform_color([c / 255 for c in POINT_COLOUR])
        dots = rendering.MaterialRecord()
        dots.shader = "defaultUnlit"
        dots.point_size = 1.0
        renderer.scene.add_geometry("points", cloud, dots)
    renderer.setup_camera(VERTICAL_FOV_DEG, scene.target_m, scene.eye_m, [0.0, 0.0, 1.0])
    pixels = np.asarray(renderer.render_to_image())[..., :3]
    Image.fromarray(np.ascontiguousarray(pixels)).save(folder / "picture.png")


if __name__ == "__main__":
    _draw(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
