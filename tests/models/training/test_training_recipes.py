"""Recipes: the published table, and what a command line makes of it."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest
import torch
from one_camera_log import SPEC, OneCameraLog, write_truth

from autolabel.commands.options.training import training_parser
from autolabel.training.options import chosen, config_of, start_network
from datasets.errors import SetupError
from datasets.loading.frame_dataset import FrameDataset
from datasets.model_inputs import InputSpec
from datasets.taxonomy import OCC3D_NUSCENES, OCC3D_WAYMO, OPENOCCUPANCY
from models.checkpoints.checkpoint import initialise, load_checkpoint, save_checkpoint
from models.presets import build, preset
from models.training import recipes
from models.training.recipes import RECIPES, recipe
from models.training.schedules import ConstantEMA, StepDecay, WarmCosine

PUBLISHED = {
    # global batch (8 GPUs), learning rate, epochs
    "fusion_r18": (64, 4e-4, 48),
    "fusion_r18_10": (64, 1e-4, 48),
    "fusion_r18_5": (64, 1e-4, 24),
    "fusion_r50": (64, 4e-4, 48),
    "fusion_swinb": (32, 4e-4, 48),
    "flashocc_pretrained": (8, 1e-4, 24),
    "flashocc": (32, 1e-4, 24),
    "flashocc_large_batch": (128, 1e-4, 24),
    "distill_few": (64, 2e-4, 24),
    "distill": (32, 1e-4, 24),
    "distill_pretrained": (64, 4e-4, 48),
    "openoccupancy_r18": (16, 1e-4, 24),
    "flow_r18": (16, 1e-4, 24),
    "waymo_d5": (16, 1e-4, 8),
    "waymo_lidar_d1": (16, 1e-4, 24),
}
FRAMES = 28_130


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_table(name: str) -> None:
    how = recipe(name)
    assert (how.batch, how.learning_rate, how.epochs) == PUBLISHED[name]
    config = how.training(FRAMES)
    assert config.steps == math.ceil(how.epochs * FRAMES / how.batch)
    assert config.learning_rate == how.learning_rate
    assert config.schedule == StepDecay(
        warmup_steps=200, warmup_from=0.001, decay_at=math.ceil(24 * FRAMES / how.batch), decay=0.1
    )
    decays = any(config.schedule.factor(s, config.steps) == 0.1 for s in (config.steps - 1,))
    assert decays == (how.epochs > 24)
    assert (config.weight_decay, config.clip_norm, config.precision) == (1e-2, 5.0, "float32")
    assert config.average == ConstantEMA()
    assert how.augmentation.flip and how.augmentation.random_sweeps
    assert how.augmentation.images is not None and how.augmentation.images.rotation_deg == 5.4
    assert how.columns is None


def test_every_recipe_is_for_a_network_there_is_and_named_once() -> None:
    for name, how in RECIPES.items():
        assert name == how.name
        assert preset(how.preset).name == how.preset
    assert set(RECIPES) >= set(PUBLISHED)
    with pytest.raises(SetupError, match="no recipe 'fusion'; there are: fusion_r18"):
        recipe("fusion")


@pytest.mark.parametrize(
    ("name", "kind"), [("waymo_d5", "ohem"), ("openoccupancy_r18", "four"), ("fusion_r18", "ce")]
)
def test_losses_and_their_class_weights_fit_the_presets_classes(
    tmp_path: Path, name: str, kind: str
) -> None:
    log = OneCameraLog()
    samples = FrameDataset(log, [write_truth(tmp_path, log)], SPEC)
    how = recipe(name)
    taxonomy = preset(how.preset).taxonomy
    loss = how.label_loss(taxonomy, samples)
    assert loss.kind == kind
    assert loss.class_weights is None or len(loss.class_weights) == taxonomy.n_classes
    if kind == "ohem":
        assert loss.class_weights is not None and taxonomy == OCC3D_WAYMO
        assert loss.class_weights[[0, taxonomy.free_id]].tolist() == pytest.approx([21.99673, 1])
        with pytest.raises(SetupError, match="weighs 16 classes, occ3d-nuscenes has 18"):
            how.label_loss(OCC3D_NUSCENES, samples)
    if kind == "four":
        assert loss.class_weights is not None and taxonomy == OPENOCCUPANCY
        assert loss.class_weights.argmin() == taxonomy.free_id == 0


def test_openoccupancy_is_trained_with_nine_sweeps_and_used_with_ten() -> None:
    how = recipe("openoccupancy_r18")
    spec = preset(how.preset).inputs
    assert (spec.past_sweeps, how.inputs(spec).past_sweeps) == (10, 9)
    assert recipe("fusion_r18").inputs(SPEC) == SPEC


def test_the_rate_follows_the_square_root_of_the_batch_unless_given() -> None:
    how = recipe("fusion_r18")
    assert how.training(FRAMES, batch=16).learning_rate == pytest.approx(2e-4)
    assert how.training(FRAMES, batch=16, learning_rate=1e-3).learning_rate == 1e-3


def test_length_is_given_in_steps_or_epochs() -> None:
    how = recipe("fusion_r18")
    assert how.training(640, epochs=2.5).steps == 25
    assert how.training(640, epochs=2.5, steps=7).steps == 7
    ours = recipe("city_student")
    assert ours.training(640).steps == ours.steps
    assert ours.training(640, epochs=1).steps == 640
    assert ours.training(640).schedule == WarmCosine()


def parse(*argv: str) -> argparse.Namespace:
    parser = training_parser("About.", default="city_student", out="out")
    return parser.parse_args([*argv, "--device", "cpu"])


def test_the_command_line_overrides_the_recipe(tmp_path: Path) -> None:
    log = OneCameraLog()
    args = parse("--steps", "9", "--parts", "2", "--precision", "float32", "--threads", "1")
    how, network = chosen(args)
    assert (how.name, network.name) == ("city_student", "camera_tiny")
    samples = FrameDataset(log, [write_truth(tmp_path, log)], SPEC, batch=4)
    config = config_of(args, how, samples)
    assert (config.steps, config.accumulation_steps, config.precision) == (9, 2, "float32")
    assert config.learning_rate == pytest.approx(2 * how.learning_rate)  # batch 4 for 1
    with pytest.raises(SetupError, match="must be positive"):
        config_of(parse("--steps", "0"), how, samples)


def test_fine_tuning_says_what_it_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(3)
    student = build("camera_tiny")
    path = tmp_path / "student.safetensors"
    save_checkpoint(path, student, "camera_tiny", {})
    args = parse("--init", str(path))
    started = start_network(args, preset("camera_tiny"))
    for name, tensor in started.state_dict().items():
        assert torch.equal(tensor, student.state_dict()[name])
    said = capsys.readouterr().out
    taken = len(student.state_dict())
    assert f"{taken} of the network's {taken} tensors taken\n" in said


def test_a_part_of_another_network_is_taken_and_the_rest_is_named(tmp_path: Path) -> None:
    lidar = build("lidar_waymo")
    path = tmp_path / "lidar.safetensors"
    save_checkpoint(path, lidar, "lidar_waymo", {})
    network = build("fusion_r18_waymo")
    before = network.state_dict()["img_backbone.conv1.weight"].clone()
    said = initialise(network, path)
    assert torch.equal(network.state_dict()["img_backbone.conv1.weight"], before)
    for name, tensor in lidar.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name
    assert f"{len(lidar.state_dict())} of the network's" in said
    assert "left as they were: " in said and "img_backbone.conv1" in said
    assert "not taken from the file" not in said
    said = initialise(lidar, _saved(tmp_path, "fusion_r18_waymo"))
    assert "not taken from the file: " in said and "img_backbone.conv1" in said


def _saved(folder: Path, name: str) -> Path:
    path = folder / f"{name}.safetensors"
    save_checkpoint(path, build(name), name, {})
    return path


def test_other_shapes_are_refused_when_fine_tuning(tmp_path: Path) -> None:
    path = _saved(tmp_path, "camera_tiny")
    with pytest.raises(SetupError, match=r"other shapes.*the first is .*: \(.*\), not \("):
        initialise(build("camera_coarse"), path)
    with pytest.raises(SetupError, match="none of its tensors"):
        initialise(torch.nn.Linear(2, 2), path)


def test_named_parts_alone_are_taken_whatever_the_others_shapes(tmp_path: Path) -> None:
    path = _saved(tmp_path, "camera_tiny")
    network, saved = build("camera_coarse"), load_checkpoint(path).module.state_dict()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    initialise(network, path, ("img_backbone", "img_neck"))
    for name, value in network.state_dict().items():
        taken = name.split(".")[0] in ("img_backbone", "img_neck")
        assert torch.equal(value, saved[name] if taken else before[name])
    with pytest.raises(SetupError, match="no part 'wheels'; it has img_backbone"):
        initialise(network, path, ("wheels",))


def test_specs_are_left_alone_by_recipes_that_say_nothing() -> None:
    spec = InputSpec(height=8, width=8, lidar=True, past_sweeps=4)
    assert recipe("city_teacher").inputs(spec) is spec


@pytest.mark.parametrize("computed", [True, False])
def test_bfloat16_is_used_where_the_device_has_it(
    computed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "computes_bfloat16", lambda device: computed and device == "cpu")
    how = recipe("city_teacher")
    assert how.training(8).precision == ("bfloat16" if computed else "float32")
    assert how.training(8, device="cuda").precision == "float32"
    assert how.training(8, precision="bfloat16").precision == "bfloat16"  # asked for
