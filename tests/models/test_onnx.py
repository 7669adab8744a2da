"""The exported student computes what the student does, for the rig it is given."""

from __future__ import annotations

import errno
import importlib.util
import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run_script
from numpy.typing import NDArray

from autolabel.commands import export_onnx
from autolabel.commands.options.export_onnx import parse
from datasets.errors import SetupError
from datasets.frames import CameraView, Frame
from datasets.geometry.grid import VoxelGrid
from datasets.model_inputs import IMAGENET_MEAN
from datasets.sources.example import example_inputs
from models.checkpoints.checkpoint import save_checkpoint
from models.inference.onnx_export import (
    INSTALL,
    OnboardStudent,
    OnnxSummary,
    Rig,
    rig_tables,
    write_onnx,
)
from models.networks.camera_student import CameraConfig, CameraStudent
from models.networks.fusion_teacher import CameraBranchConfig
from models.networks.heads import HeadConfig
from models.networks.resnet import ResNetConfig
from models.presets import Preset, build, preset

ROOT = Path(__file__).resolve().parents[2]
NAMES = [f"camera {i}" for i in range(6)]
LIFTS = ["lift", "pull"]


def shrunken(lift: str) -> Preset:
    """FlashOcc or camera_tiny with narrow layers, small pictures and few, large cells."""
    full = preset("flashocc_r50" if lift == "lift" else "camera_tiny").with_reference_parity()
    assert isinstance(full.network, CameraConfig)
    trunk, u = full.network.trunk, full.network.head.bev_upsample
    view = replace(
        full.network.camera.lift,
        grid=VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(2.0, 2.0, 6.4), shape=(40, 32, 1)),
    )
    backbone = ResNetConfig(
        blocks=(1, 1, 1, 1), widths=(8, 8, 16, 16), bottleneck=False, outputs=(2, 3, 4)
    )
    return replace(
        full,
        grid=VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(2 / u,) * 3, shape=(40 * u, 32 * u, 4)),
        inputs=replace(full.inputs, height=64, width=176),
        network=CameraConfig(
            camera=CameraBranchConfig(backbone=backbone, neck_channels=32, lift=view),
            trunk=replace(trunk, channels=(8, 8, 16), blocks=(1, 1, 1), neck_channels=8),
            head=HeadConfig(conv_channels=16, hidden=16, levels=4, bev_upsample=u),
        ),
    )


def student(spec: Preset) -> CameraStudent:
    """Random weights, and norms that have seen something."""
    assert isinstance(spec.network, CameraConfig)
    torch.manual_seed(0)
    network = CameraStudent(spec.network)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network.eval()


def rig_of(spec: Preset) -> Rig:
    return Rig.of(example_inputs(spec.inputs), NAMES)


def another_rig(spec: Preset) -> Rig:
    """Cameras turned, rolled, lifted and with a longer focal length than those of ``rig_of``."""
    first = rig_of(spec)
    turned = torch.linalg.matrix_exp(
        torch.tensor([[0.0, -0.5, 0.1], [0.5, 0.0, 0.05], [-0.1, -0.05, 0.0]])
    )
    T = first.T_ego_camera.clone()
    T[:, :3] = turned @ T[:, :3]
    T[:, :3, 3] += torch.tensor([0.7, -0.2, 0.4])
    K = first.intrinsics.clone()
    K[:, :2, :2] *= 1.3
    return replace(first, T_ego_camera=T, intrinsics=K)


def pictures(spec: Preset) -> torch.Tensor:
    return example_inputs(spec.inputs, seed=1).images


@torch.inference_mode()
def expected(network: CameraStudent, spec: Preset, rig: Rig) -> NDArray[np.float32]:
    return np.asarray(network(rig.inputs(pictures(spec))).numpy())


@dataclass
class Exported:
    spec: Preset
    network: CameraStudent
    path: Path
    written: OnnxSummary

    def run(self, feeds: dict[str, torch.Tensor], threads: int = 2) -> NDArray[Any]:
        runtime = pytest.importorskip("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        session = runtime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])
        (out,) = session.run(None, {name: value.numpy() for name, value in feeds.items()})
        return np.asarray(out)


def export(folder: Path, lift: str, **options: Any) -> Exported:
    pytest.importorskip("onnx", reason=f"the extra 'onnx' is not installed: {INSTALL}")
    spec = shrunken(lift)
    network = student(spec)
    path = folder / f"{lift}.onnx"
    written = write_onnx(path, network, spec, rig_of(spec), **options)
    return Exported(spec, network, path, written)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(
        tmp_path_factory.mktemp("fixed"), "lift", fixed_rig=True, metadata={"weights_sha256": "ab"}
    )


@pytest.fixture(scope="module", params=LIFTS)
def open_to_any_rig(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    return export(tmp_path_factory.mktemp("any"), request.param, fixed_rig=False)


def assert_same(got: NDArray[Any], want: NDArray[np.float32]) -> None:
    assert got.dtype == np.float32 and got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    assert (got.argmax(-1) == want.argmax(-1)).mean() > 0.9999


@pytest.mark.parametrize("rig", [rig_of, another_rig])
@pytest.mark.parametrize("lift", LIFTS)
def test_tables_pool_what_the_network_pools(lift: str, rig: Any) -> None:
    spec = shrunken(lift)
    network, tables = student(spec), rig_tables(spec, rig(spec))
    with torch.inference_mode():
        fixed = OnboardStudent(network, tables=tables)(pictures(spec))
        given = OnboardStudent(network)(pictures(spec), *tables.named().values())
    want = expected(network, spec, rig(spec))
    assert_same(fixed.numpy(), want)
    assert_same(given.numpy(), want)


@pytest.mark.parametrize("lift", LIFTS)
def test_a_rig_that_sees_no_cell_has_tables_all_the_same(lift: str) -> None:
    spec = shrunken(lift)
    up = rig_of(spec)
    T = up.T_ego_camera.clone()
    T[:, 2, 3] = 1000.0
    T[:, :3, 2] = torch.tensor([0.0, 0.0, 1.0])
    T[:, :3, 0], T[:, :3, 1] = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0])
    away, network = replace(up, T_ego_camera=T), student(spec)
    tables = rig_tables(spec, away)
    assert all(n > 0 for table in tables.named().values() for n in table.shape)
    with torch.inference_mode():
        got = OnboardStudent(network, tables=tables)(pictures(spec))
    assert_same(got.numpy(), expected(network, spec, away))


@pytest.mark.parametrize("threads", [1, 2])
def test_graph_for_one_rig_equals_the_network(fixed: Exported, threads: int) -> None:
    got = fixed.run({"images": pictures(fixed.spec)}, threads)
    assert_same(got, expected(fixed.network, fixed.spec, rig_of(fixed.spec)))


@pytest.mark.parametrize("rig", [rig_of, another_rig])
def test_one_graph_serves_any_rig(open_to_any_rig: Exported, rig: Any) -> None:
    e = open_to_any_rig
    feeds = {"images": pictures(e.spec)} | rig_tables(e.spec, rig(e.spec)).named()
    assert list(feeds) == list(e.written.inputs)
    want = expected(e.network, e.spec, rig(e.spec))
    assert_same(e.run(feeds), want)
    other = another_rig if rig is rig_of else rig_of
    assert np.abs(want - expected(e.network, e.spec, other(e.spec))).max() > 0.01


def test_file_says_how_to_use_it(fixed: Exported, open_to_any_rig: Exported) -> None:
    onnx = pytest.importorskip("onnx")
    metadata = {p.key: p.value for p in onnx.load(fixed.path).metadata_props}
    assert metadata == fixed.written.metadata
    assert metadata["preset"] == "flashocc_r50" and metadata["weights_sha256"] == "ab"
    assert metadata["calibration"] == "constant" and metadata["opset"] == "18"
    assert metadata["channels"] == "blue, green, red"  # reference parity
    assert tuple(json.loads(metadata["mean"])) == IMAGENET_MEAN
    assert json.loads(metadata["picture_size"]) == {"height": 64, "width": 176}
    assert json.loads(metadata["grid"]) == fixed.spec.grid.to_json()
    assert json.loads(metadata["class_names"])[4] == "car"
    assert "first camera's picture" in metadata["frame"]
    assert json.loads(metadata["camera_order"]) == NAMES
    rig = rig_of(fixed.spec)
    np.testing.assert_array_equal(
        np.float32(json.loads(metadata["rig"])["T_ego_camera"]), rig.T_ego_camera
    )
    assert json.loads(metadata["inputs"]) == {"images": "float32 (1, 6, 3, 64, 176)"}
    assert json.loads(metadata["outputs"]) == {"logits": "float32 (1, 40, 32, 4, 18)"}
    variable = open_to_any_rig.written
    assert variable.metadata["calibration"] == "input" and "rig" not in variable.metadata
    assert variable.inputs["sums"] == "int32 (split_cells, chunks_per_cell)"


def test_pictures_are_red_first_without_reference_parity(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    spec = replace(
        shrunken("pull"), inputs=replace(shrunken("pull").inputs, reference_parity=False)
    )
    written = write_onnx(
        tmp_path / "a.onnx", student(spec), spec, rig_of(spec), fixed_rig=True, argmax=True
    )
    assert written.metadata["channels"] == "red, green, blue"
    assert "LiDAR key-frame" in written.metadata["frame"]
    got = Exported(spec, student(spec), tmp_path / "a.onnx", written).run(
        {"images": pictures(spec)}
    )
    want = expected(student(spec), spec, rig_of(spec)).argmax(-1)
    assert got.dtype == np.uint8 and got.shape == (1, 80, 64, 4)
    assert (got == want).mean() > 0.9999


def test_graph_is_standard_without_scatter_or_local_paths(
    fixed: Exported, open_to_any_rig: Exported
) -> None:
    onnx = pytest.importorskip("onnx")
    for path in (fixed.path, open_to_any_rig.path):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert [(s.domain, s.version) for s in model.opset_import] == [("", 18)]
        assert not model.functions and not any(n.domain for n in model.graph.node)
        assert not any("Scatter" in n.op_type for n in model.graph.node)
        assert str(ROOT).encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("flashocc_r50_4d_stereo", "reads earlier frames"),
        ("fusion_r18_occ3d", "reads LiDAR"),
        ("lidar_occ3d", "reads LiDAR"),
    ],
)
def test_other_networks_are_refused(name: str, why: str) -> None:
    with pytest.raises(SetupError, match=f"{name}' {why}.*camera students of one frame"):
        rig_tables(preset(name), rig_of(shrunken("lift")))


def test_rig_of_other_shapes_is_refused() -> None:
    rig = rig_of(shrunken("lift"))
    with pytest.raises(ValueError, match=r"intrinsics of 6 cameras must be \(6, 3, 3\)"):
        replace(rig, intrinsics=rig.T_ego_camera)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    spec = shrunken("pull")
    with pytest.raises(SetupError, match=r"pip install.*\[onnx\]"):
        write_onnx(tmp_path / "a.onnx", student(spec), spec, rig_of(spec), fixed_rig=True)


@pytest.fixture
def command() -> ModuleType:
    """What the command runs."""
    for module in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(module)
    return export_onnx


def call(command: ModuleType, *arguments: str) -> int:
    threads = ["--threads", str(torch.get_num_threads())]
    return int(command.run(parse([*arguments, *threads])))


def test_command_exports_and_checks(command: ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "new" / "tiny.onnx"
    options = ["--preset", "camera_tiny", "-o", str(out), "--calibration", "input"]
    done = run_script("scripts/export_onnx.py", *options)
    assert done.returncode == 0, done.stderr
    assert "opset 18" in done.stdout and "places    int32 (50000)" in done.stdout
    assert "% of 640,000 voxels" in done.stdout and "onnxruntime" in done.stdout
    assert list(out.parent.iterdir()) == [out]


def test_command_writes_nothing_when_the_check_fails(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "ENOUGH", 1.1)
    monkeypatch.setattr(command, "RUNS", 1)
    out = tmp_path / "new" / "a.onnx"
    assert call(command, "--preset", "camera_tiny", "--argmax", "-o", str(out)) == 1
    assert list(out.parent.iterdir()) == []


def test_command_wants_a_real_rig_for_trained_weights(command: ModuleType, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    save_checkpoint(weights, build("camera_tiny"), "camera_tiny", {})
    with pytest.raises(SetupError, match=r"name a log of it.*or export with --calibration input"):
        call(command, "--weights", str(weights), "-o", str(tmp_path / "a.onnx"))


def test_rig_of_a_log_is_taken_as_mounted(command: ModuleType) -> None:
    mount, motion = np.eye(4), np.eye(4)
    mount[:3, 3], motion[:3, 3] = (1.0, 0.5, 1.5), (0.4, 0.0, 0.0)
    view = CameraView(
        name="CAM_BACK", path=Path("a.jpg"), timestamp_us=0, width=10, height=10,
        intrinsics=np.eye(3), T_ego_camera=motion @ mount, T_ego_vehicle=motion,
    )  # fmt: skip
    frame = Frame(
        scene_id="s", token="t", timestamp_us=0, T_global_ego=np.eye(4), cameras=(view,), lidar=None
    )
    (mounted,) = command.as_mounted(frame).cameras
    np.testing.assert_allclose(mounted.T_ego_camera, mount)
    np.testing.assert_allclose(mounted.T_ego_vehicle, np.eye(4))


def test_command_names_the_file_that_does_not_fit_and_keeps_the_one_before(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(command, "write_onnx", fails)
    out = tmp_path / "a.onnx"
    out.write_bytes(b"before")
    with pytest.raises(OSError, match="No space left") as found:
        call(command, "--preset", "camera_tiny", "-o", str(out))
    assert found.value.filename == str(out)
    assert list(tmp_path.iterdir()) == [out] and out.read_bytes() == b"before"
