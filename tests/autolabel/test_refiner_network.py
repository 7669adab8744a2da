"""The refiner's network: it sees what lies around a voxel, is kept only where that helps, and is
refused where it does not fit."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from autolabel.commands.options.label_log import DEFAULT_WEIGHTS
from autolabel.labeling.stored_calibration import calibration_of
from autolabel.refinement import crops as crop_draws
from autolabel.refinement import network_fit
from autolabel.refinement.crops import UNKNOWN, CropDraws, PackedCrop
from autolabel.refinement.kernels import SURFACE
from autolabel.refinement.network import NetworkShape, RefinerNetwork
from autolabel.refinement.network_fit import fit_network
from autolabel.refinement.temporal_fusion import (
    EVIDENCE_BINS,
    LOG_STEP,
    Pooled,
    Refinement,
    Refiner,
    pool_logits,
    refine,
)
from datasets.errors import SetupError
from datasets.geometry.grid import VoxelGrid
from models.checkpoints.checkpoint import CALIBRATION_KEY, load_checkpoint

GRID = VoxelGrid(min_m=(0.0, 0.0, 0.0), size_m=(0.8, 0.8, 0.8), shape=(24, 20, 2))
FREE, LEFT, RIGHT, SIGN = 0, 1, 2, 3
K = 4
ODD = (7, 5, 2)


def shape_of(voxel_m: float = 0.8, kept: tuple[int, ...] = ()) -> NetworkShape:
    return NetworkShape(
        classes=K, levels=2, voxel_m=voxel_m, bins=EVIDENCE_BINS, surface=SURFACE, kept=kept
    )


def network(seed: int = 0, voxel_m: float = 0.8, kept: tuple[int, ...] = ()) -> RefinerNetwork:
    """One that adds something."""
    torch.manual_seed(seed)
    made = RefinerNetwork(shape_of(voxel_m, kept))
    torch.nn.init.normal_(made.out.weight, std=0.3)
    return made


def refiner(**values: Any) -> Refiner:
    table = np.zeros((K, EVIDENCE_BINS), np.float32)
    given = {"own": 1.0, "near": 0.0, "far": 0.0, "self_only": 1.0} | values
    return Refiner(config=Refinement(), own_evidence=table, other_evidence=table.copy(), **given)


def pooled_of(logs: NDArray[np.float32]) -> Pooled:
    flat = logs.reshape(-1, K).astype(np.float32)
    none = np.zeros(len(flat), np.intp)
    return Pooled(
        own=flat,
        near=flat,
        far=flat,
        self_only=np.zeros(len(flat), bool),
        own_bin=none,
        other_bin=none,
        surface=np.zeros((len(flat), 2 * SURFACE), np.float32),
    )


def inputs(
    shape: tuple[int, int, int],
) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    draws = torch.Generator().manual_seed(1)
    logs = [torch.randn(1, *shape, K, generator=draws).log_softmax(-1) for _ in range(3)]
    bins = [torch.randint(EVIDENCE_BINS, (1, *shape), generator=draws) for _ in range(2)]
    return logs, bins, torch.rand(1, *shape, 2 * SURFACE, generator=draws) - 0.5


def everywhere(
    of: RefinerNetwork, given: tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """(N, X, Y, Z, K) of the network."""
    shape = given[2].shape[:-1]
    return of(*given, torch.arange(shape.numel())).view(*shape, K)


def test_an_untrained_network_adds_nothing() -> None:
    fresh = RefinerNetwork(shape_of())
    assert not everywhere(fresh, inputs((8, 6, 2))).any()


@pytest.mark.parametrize("voxel_m", [0.8, 0.4])
def test_a_kept_network_is_the_same_network(voxel_m: float) -> None:
    kept = RefinerNetwork.from_json(network(voxel_m=voxel_m).to_json())
    again = RefinerNetwork.from_json(json.loads(json.dumps(kept.to_json())))
    torch.testing.assert_close(
        everywhere(again, inputs(ODD)), everywhere(kept, inputs(ODD)), rtol=0, atol=0
    )
    near = everywhere(network(voxel_m=voxel_m), inputs(ODD))
    torch.testing.assert_close(everywhere(kept, inputs(ODD)), near, rtol=0, atol=0.02)


@pytest.mark.parametrize("shape", [(24, 20, 2), (7, 5, 2), (8, 8, 2)])
@pytest.mark.parametrize(("voxel_m", "kept"), [(0.8, ()), (0.4, ()), (0.4, (LEFT, SIGN))])
def test_a_frame_in_slabs_is_the_frame_at_once(
    voxel_m: float, kept: tuple[int, ...], shape: tuple[int, int, int]
) -> None:
    made = network(voxel_m=voxel_m, kept=kept)
    logs, bins, surface = inputs(shape)
    base = torch.randn(*shape, K, generator=torch.Generator().manual_seed(2))
    added = everywhere(made, (logs, bins, surface))[0].detach()
    want = made.combined(base, added).numpy()
    found = made.of_frame(
        [part.reshape(-1, K).numpy() for part in logs],
        [part.flatten().numpy() for part in bins],
        surface.reshape(-1, 2 * SURFACE).numpy(),
        base.numpy(),
    )
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_what_is_left_to_the_pool_keeps_its_probability() -> None:
    made = RefinerNetwork.from_json(json.loads(json.dumps(network(kept=(RIGHT,)).to_json())))
    assert made.shape.kept == (RIGHT,)
    draws = torch.Generator().manual_seed(4)
    base, added = torch.randn(2, 9, K, generator=draws)
    before, after = base.softmax(-1), made.combined(base, added).softmax(-1)
    torch.testing.assert_close(after[:, RIGHT], before[:, RIGHT])
    others = [FREE, LEFT, SIGN]
    torch.testing.assert_close(
        after[:, others] / after[:, others].sum(-1, keepdim=True),
        (base + added)[:, others].softmax(-1),
    )


@pytest.mark.parametrize("kept", [(RIGHT, RIGHT), (K,), (FREE, LEFT, RIGHT)])
def test_a_network_that_leaves_too_much_is_refused(kept: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="not the shape"):
        shape_of(kept=kept)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"float16": ""}, "in 0 bytes"),
        ({"classes": 5}, "bytes"),
        ({"levels": 0}, "not the shape"),
        ({"levels": 400}, "a refiner's network of .* weights"),
    ],
)
def test_a_damaged_network_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RefinerNetwork.from_json(network().to_json() | change)


def test_a_network_that_is_not_finite_is_refused() -> None:
    data = network().to_json()
    values = np.frombuffer(base64.b64decode(data["float16"]), "<f2").copy()
    values[3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        RefinerNetwork.from_json(data | {"float16": base64.b64encode(values.tobytes()).decode()})


def test_a_refiner_is_refused_with_a_network_of_other_classes() -> None:
    table = np.zeros((K + 1, EVIDENCE_BINS), np.float32)
    with pytest.raises(ValueError, match=f"a network of {K} classes in a refiner of {K + 1}"):
        Refiner(
            config=Refinement(),
            own=1.0,
            near=0.0,
            far=0.0,
            self_only=1.0,
            own_evidence=table,
            other_evidence=table,
            network=network(),
        )


def test_a_refiner_comes_back_with_its_network() -> None:
    full = refiner(network=network())
    again = Refiner.from_json(json.loads(json.dumps(full.to_json())))
    pooled = pooled_of(np.random.default_rng(0).normal(size=(*GRID.shape, K)).astype(np.float32))
    want = refine(pooled, replace(full, network=None), full.config, GRID)
    found = refine(pooled, again, again.config, GRID)
    assert again.network is not None
    want = again.network.of_frame(
        (pooled.own, pooled.near, pooled.far),
        (pooled.own_bin, pooled.other_bin),
        pooled.surface,
        want,
    )
    np.testing.assert_allclose(found, want, atol=1e-5)


def test_a_refiner_of_an_older_set_is_refused_by_name() -> None:
    older = refiner(network=network()).to_json() | {"offsets": [0.0] * K}
    with pytest.raises(ValueError, match="older set, with offsets: calibrate the weights again"):
        Refiner.from_json(older)


def street(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Log probabilities that leave two classes open, and the truth: the class is told by a sign
    three voxels away."""
    truth = np.full(GRID.shape, FREE)
    logits = np.zeros((*GRID.shape, K), np.float32)
    logits[..., FREE] = 4
    for x in range(2, GRID.shape[0] - 4, 6):
        right = rng.random() < 0.5
        truth[x : x + 2, 2:-4, 0] = RIGHT if right else LEFT
        logits[x : x + 2, 2:-4, 0] = [0, 4, 4, 0]
        if right:
            truth[x, 2:-4, 1] = SIGN
            logits[x, 2:-4, 1] = [0, 0, 0, 4]
    logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
    return logits, truth.astype(np.uint8)


def crops_of_streets(scenes: int, *, told: bool = True) -> list[tuple[str, PackedCrop]]:
    """Args:
    told: by the street; otherwise the truth is drawn from the probabilities, voxel by voxel.
    """
    rng = np.random.default_rng(0)
    draws = CropDraws(GRID, K, scenes, free_id=FREE)
    crops = []
    for s in range(scenes):
        logs, truth = street(rng)
        if not told:
            passed = np.exp(logs).cumsum(-1) < rng.random((*GRID.shape, 1))
            truth = passed.sum(-1).clip(max=K - 1).astype(np.uint8)
        everywhere = np.ones(truth.size, bool)
        for part in draws.draw(truth.ravel(), everywhere):
            known = everywhere[part]
            pooled = pooled_of(logs.reshape(-1, K)[part])
            crops.append((f"scene-{s:02}", draws.crop(pooled, truth.ravel()[part], known)))
    return crops


def test_the_network_tells_a_class_by_what_lies_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_fit, "EPOCHS", 25)
    monkeypatch.setattr(network_fit, "USE_BFLOAT16", False)  # slow on so small a map
    fitted = fit_network(refiner(), crops_of_streets(16), GRID)
    assert fitted.network is not None
    rng = np.random.default_rng(99)
    for _ in range(3):
        logs, truth = street(rng)
        found = refine(pooled_of(logs), fitted, Refinement(), GRID).argmax(-1)
        for class_id in np.unique(truth):  # the pool takes every RIGHT for LEFT
            assert (found == truth)[truth == class_id].mean() > 0.95


def test_a_network_that_helps_nothing_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_fit, "EPOCHS", 4)
    assert fit_network(refiner(), crops_of_streets(15, told=False), GRID).network is None


def test_few_scenes_train_no_network() -> None:
    crops = crops_of_streets(network_fit.MIN_SCENES - 1)
    assert fit_network(refiner(), crops, GRID).network is None


def test_a_crop_keeps_what_was_pooled() -> None:
    rng = np.random.default_rng(0)
    draws = CropDraws(GRID, K, 1, free_id=FREE)
    nothing = np.zeros(GRID.n_voxels, bool)
    (part, *_) = draws.draw(nothing.astype(np.uint8), nothing)
    logs = np.log(rng.dirichlet(np.ones(K), len(part))).astype(np.float32)
    known = rng.random(len(part)) < 0.5
    truth = rng.integers(0, K, len(part)).astype(np.uint8)
    crop = draws.crop(pooled_of(logs), truth, known).unpack()
    voxels = np.arange(len(part))
    again = crop.pooled(voxels)
    np.testing.assert_allclose(again.own, logs.clip(-255 * LOG_STEP), atol=LOG_STEP / 2 + 1e-6)
    np.testing.assert_array_equal(crop.truth.ravel(), np.where(known, truth, UNKNOWN))
    assert pool_logits(again, refiner(), Refinement()).shape == (len(part), K)


def test_crops_stay_within_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    crop_bytes = (3 * K + 4 * SURFACE + 4) * GRID.n_voxels / crop_draws.EXPECTED_RATIO
    monkeypatch.setattr(crop_draws, "MAX_BYTES", 30 * crop_bytes)
    draws = CropDraws(GRID, K, 100, free_id=FREE)
    nothing = np.zeros(GRID.n_voxels, bool)
    n = sum(len(draws.draw(nothing.astype(np.uint8), nothing)) for _ in range(100))
    assert 15 < n < 45


def test_a_store_names_the_network_instead_of_holding_it() -> None:
    made = network()
    described = refiner(network=made).describe()["network"]
    assert described["weights"] == sum(p.numel() for p in made.parameters())
    assert len(json.dumps(described)) < 200
    assert described == network().describe() != network(seed=1).describe()


def test_a_network_fits_its_own_grid_alone() -> None:
    coarse, other = network(), replace(GRID, size_m=(0.4, 0.4, 0.4))
    assert coarse.fits(GRID, K) and not coarse.fits(GRID, K + 1) and not coarse.fits(other, K)
    assert not coarse.fits(replace(GRID, shape=(24, 20, 3)), K)


def test_weights_with_a_refiner_of_another_grid_are_refused() -> None:
    model = load_checkpoint(DEFAULT_WEIGHTS)
    calibration = calibration_of(model, DEFAULT_WEIGHTS)
    n_classes = model.preset.taxonomy.n_classes
    coarse = NetworkShape(
        classes=n_classes, levels=8, voxel_m=0.8, bins=EVIDENCE_BINS, surface=SURFACE
    )
    table = np.zeros((n_classes, EVIDENCE_BINS), np.float32)
    other = replace(
        refiner(), own_evidence=table, other_evidence=table, network=RefinerNetwork(coarse)
    )
    text = json.dumps(replace(calibration, refiner=other).to_json())
    mixed = replace(model, metadata=model.metadata | {CALIBRATION_KEY: text})
    with pytest.raises(SetupError, match=r"of 8 levels of 0.8 m, .* has 16 of 0.4 m"):
        calibration_of(mixed, DEFAULT_WEIGHTS)


def test_rare_classes_are_met_by_crops() -> None:
    grid = VoxelGrid(min_m=(0.0, 0.0, 0.0), size_m=(0.4, 0.4, 0.4), shape=(200, 200, 2))
    truth = np.zeros(grid.shape, np.uint8)
    truth[3, 5, 0] = SIGN  # in a corner: few crops drawn anywhere hold it
    truth[100:, :, 0] = LEFT
    known = np.ones(grid.n_voxels, bool)
    draws = CropDraws(grid, K, 1, free_id=FREE)
    crops = [crop for _ in range(100) for crop in draws.draw(truth.ravel(), known)]
    assert all(len(crop) == 64 * 64 * 2 for crop in crops)
    met = np.mean([(truth.ravel()[crop] == SIGN).any() for crop in crops])
    assert 0.15 < met < 0.35  # half of a half


def test_a_mirrored_crop_is_its_mirror_image() -> None:
    logs, truth = street(np.random.default_rng(3))
    draws = CropDraws(GRID, K, 1, free_id=FREE)
    known = np.ones(truth.size, bool)
    crop = draws.crop(pooled_of(logs), truth.ravel(), known).unpack()
    mirrored = crop.mirrored([0, 1])
    np.testing.assert_array_equal(mirrored.truth, truth[::-1, ::-1])
    np.testing.assert_array_equal(mirrored.logs, crop.logs[:, ::-1, ::-1])
    np.testing.assert_array_equal(mirrored.bins, crop.bins[:, ::-1, ::-1])
    np.testing.assert_array_equal(crop.mirrored([]).surface, crop.surface)
