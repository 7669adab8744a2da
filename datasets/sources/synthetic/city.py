"""The built-in city on disk: generate it once, reuse it, know its splits.

The folder is a nuScenes root (``v1.0-trainval``) with Occ3D labels under ``gts/``, OpenOcc labels
with flow under ``openocc_v2/`` and a marker ``city.json``. A scene depends on the seed, its split,
its index and the frame settings alone: the number of scenes and of workers changes no byte of it.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from datasets.errors import SetupError
from datasets.files.json_files import read_json_file, write_json
from datasets.sources.synthetic import PROFILES

GENERATOR_VERSION = 2
MARKER = "city.json"
_SPLITS = ("labeled", "unlabeled", "val")
_FIRST_NAME = {"labeled": 2001, "unlabeled": 4001, "val": 6001}  # above nuScenes' own numbers
_WORKER_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    # glibc: keep big blocks instead of handing their pages back after every array
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CityConfig:
    """What to generate.

    Attributes:
        seed: of everything.
        labeled_scenes, unlabeled_scenes, val_scenes: training scenes whose labels may be used,
            training scenes whose labels are for scoring only, and validation scenes.
        frames_per_scene: key-frames, 0.5 s apart.
        image_height, image_width: pixels of the six pictures.
        sweeps: LiDAR sweeps before the first key-frame. Between key-frames there are always nine,
            as in nuScenes (20 Hz).
        pose_noise_m, pose_noise_deg: standard deviations of an error of every ego pose in the
            tables, independent of the others: along each axis, and of the heading. Labels do not
            suffer; annotations share the error of their key sweep, as if drawn around its returns.
        flat_poses: ego poses lie at z = 0, as in nuScenes.

    Raises:
        ValueError: a count is negative, no scene or frame is asked for, a picture is too small, or
            a pose noise makes no sense.
    """

    seed: int = 0
    labeled_scenes: int
    unlabeled_scenes: int
    val_scenes: int
    frames_per_scene: int = 8
    image_height: int = 96
    image_width: int = 256
    sweeps: int = 9
    pose_noise_m: float = 0.0
    pose_noise_deg: float = 0.0
    flat_poses: bool = False

    def __post_init__(self) -> None:
        counts = (self.labeled_scenes, self.unlabeled_scenes, self.val_scenes)
        if min(counts) < 0 or sum(counts) == 0 or max(counts) > 1999:
            raise ValueError(f"a city needs between 1 and 1999 scenes of a split: {counts}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative: {self.seed}")
        if self.frames_per_scene < 1:
            raise ValueError(f"a scene needs a key-frame: {self.frames_per_scene}")
        if self.image_height < 8 or self.image_width < 8:
            raise ValueError(f"pictures of {self.image_height}x{self.image_width} are too small")
        if not 1 <= self.sweeps <= 100:
            raise ValueError(f"sweeps must be 1..100, not {self.sweeps}")
        if not (0 <= self.pose_noise_m <= 10 and 0 <= self.pose_noise_deg <= 10):
            noise = (self.pose_noise_m, self.pose_noise_deg)
            raise ValueError(f"pose noise must be 0..10 m and 0..10 degrees, not {noise}")

    def scene_names(self, split: str) -> tuple[str, ...]:
        """Names of ``labeled``, ``unlabeled`` or ``val``."""
        count: int = getattr(self, f"{split}_scenes")
        return tuple(f"scene-{_FIRST_NAME[split] + i:04d}" for i in range(count))


def city_config(profile: str, *, scenes: int, seed: int = 0) -> CityConfig:
    """A city of so many training scenes: a fifth of them labeled, and as many more to validate.

    Args:
        profile: ``tiny``: 96x256 pictures and 8 key-frames a scene; ``full``: the sizes of
            nuScenes, 900x1600 pictures and 40 key-frames.

    Raises:
        ValueError: unknown profile, or fewer than two scenes.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    if scenes < 2:
        raise ValueError(f"one scene with labels and one without are the least, not {scenes}")
    fifth = max(1, round(scenes / 5))
    full = profile == "full"
    return CityConfig(
        seed=seed,
        labeled_scenes=fifth,
        unlabeled_scenes=scenes - fifth,
        val_scenes=fifth,
        frames_per_scene=40 if full else 8,
        image_height=900 if full else 96,
        image_width=1600 if full else 256,
    )


def _marker(config: CityConfig) -> dict[str, Any]:
    return {
        "generator_version": GENERATOR_VERSION,
        "config": asdict(config),
        "splits": {s: list(config.scene_names(s)) for s in _SPLITS},
    }


def city_splits(root: Path) -> dict[str, tuple[str, ...]]:
    """Scene names of ``labeled``, ``unlabeled``, ``train`` (both), ``val`` and ``all``.

    Raises:
        SetupError: there is no city at ``root``.
    """
    try:
        marker = read_json_file(root / MARKER)
        names = {s: tuple(str(n) for n in marker["splits"][s]) for s in _SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{root} holds no built-in city ({MARKER}: {error})") from error
    names["train"] = names["labeled"] + names["unlabeled"]
    names["all"] = names["train"] + names["val"]
    return names


def _is_vacant(root: Path) -> bool:
    return not root.exists() or (root.is_dir() and not any(root.iterdir()))


def ensure_city(
    root: Path, config: CityConfig, *, workers: int | None = None, progress: bool = True
) -> Path:
    """The city of ``config`` at ``root``, generated there on first use (see ``generate_city``).

    Raises:
        SetupError: ``root`` holds something else, or a city of another config or generator.
    """
    if _is_vacant(root):
        generate_city(root, config, workers=workers, progress=progress)
        return root
    try:
        marker = read_json_file(root / MARKER)
    except (OSError, ValueError) as error:
        raise SetupError(
            f"{root} exists and is not a built-in city; name another folder"
        ) from error
    if marker != _marker(config):
        raise SetupError(
            f"{root} holds a city of another config or generator version; "
            f"name another folder or remove this one"
        )
    return root


@contextmanager
def _worker_environment() -> Iterator[None]:
    """Worker processes started inside use one thread each and keep their memory."""
    before = {name: os.environ.get(name) for name in _WORKER_ENVIRONMENT}
    os.environ.update(_WORKER_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _drive(root: Path, config: CityConfig, split: str, index: int) -> dict[str, Any]:
    # the simulator imports Open3D: only where scenes are made
    from datasets.sources.synthetic.export.nuscenes_writer import DriveSpec, write_drive

    spec = DriveSpec(
        entropy=(config.seed, _SPLITS.index(split), index),
        name=config.scene_names(split)[index],
        number=_FIRST_NAME[split] + index,
        frames=config.frames_per_scene,
        lead_sweeps=config.sweeps,
        height=config.image_height,
        width=config.image_width,
        pose_noise_m=config.pose_noise_m,
        pose_noise_deg=config.pose_noise_deg,
        flat_poses=config.flat_poses,
    )
    return write_drive(root, spec)


def generate_city(
    root: Path, config: CityConfig, *, workers: int | None = None, progress: bool = True
) -> None:
    """Simulate and write a city. It appears at ``root`` complete or not at all.

    Args:
        root: must not exist, or be empty.
        workers: processes, one per core by default; 1 works in this process.
        progress: whether to show a bar.

    Raises:
        SetupError: ``root`` holds something already.
    """
    from datasets.sources.synthetic.export.nuscenes_tables import shared_rows, write_tables
    from datasets.sources.synthetic.export.nuscenes_writer import data_folders

    if not _is_vacant(root):
        raise SetupError(f"{root} is not empty: a city needs a folder of its own")
    jobs = [(s, i) for s in _SPLITS for i in range(len(config.scene_names(s)))]
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = root.with_name(f".{root.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for folder in data_folders():
            (partial / folder).mkdir(parents=True)
        done: dict[tuple[str, int], dict[str, Any]] = {}
        bar = tqdm(total=len(jobs), desc="building the city", unit="scene", disable=not progress)
        with bar:
            if workers == 1:
                for job in jobs:
                    done[job] = _drive(partial, config, *job)
                    bar.update()
            else:
                context = multiprocessing.get_context("spawn")
                with (
                    _worker_environment(),
                    ProcessPoolExecutor(workers, mp_context=context) as pool,
                ):
                    futures = {pool.submit(_drive, partial, config, *job): job for job in jobs}
                    for future in as_completed(futures):
                        done[futures[future]] = future.result()
                        bar.update()
        tables: dict[str, list[dict[str, Any]]] = {}
        for job in jobs:
            for name, rows in done[job].items():
                tables.setdefault(name, []).extend(rows)
        write_tables(partial, {**tables, **shared_rows()})
        write_json(partial / MARKER, _marker(config))
        try:
            partial.rename(root)
        except OSError as error:  # another process was faster
            raise SetupError(f"{root} was filled by another process meanwhile") from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
