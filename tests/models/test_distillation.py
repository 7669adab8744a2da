"""Distillation: terms by hand on grids that are not square, and a teacher that never learns."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.errors import SetupError
from datasets.loading.batch import Batch, Target
from datasets.model_inputs import ModelInputs
from datasets.taxonomy import OCC3D_NUSCENES, OPENOCCUPANCY, Taxonomy
from models.networks.heads import HeadConfig, OccupancyHead
from models.presets import build, preset
from models.training.distillation import (
    Distillation,
    DistillationConfig,
    DistillationObjective,
    cell_regions,
    pooled_to,
    used_voxels,
    voxel_regions,
)
from models.training.frozen_teacher import FrozenTeacher, TeacherOutputs, inherit_head, joint_inputs
from models.training.loop import TrainingConfig, train
from models.training.objectives import LabelLoss, Weighted

CAR, ROAD, WALL, FREE = range(4)
STREET = Taxonomy(
    name="street",
    names=("car", "road", "wall", "free"),
    colors=((0, 0, 0),) * 4,
    free_id=FREE,
    foreground=(CAR,),
    dynamic=(CAR,),
)
# (X, Y, Z): columns from the ground up
SCENE = torch.tensor(
    [
        [[ROAD, CAR], [FREE, FREE]],
        [[ROAD, FREE], [FREE, CAR]],
        [[FREE, FREE], [WALL, FREE]],
    ],
    dtype=torch.uint8,
)
CE = LabelLoss(taxonomy=STREET)
REGIONS = ("foreground", "background", "empty")


def inputs(B: int, Y: int, X: int, *, mirror: Sequence[tuple[bool, bool]] = ()) -> ModelInputs:
    """Pictures that the little networks below take for BEV maps."""
    flips = mirror or [(False, False)] * B
    generator = torch.Generator().manual_seed(0)
    return ModelInputs(
        images=torch.randn(B, 1, 3, Y, X, generator=generator),
        T_ego_camera=torch.eye(4).expand(B, 1, 4, 4),
        intrinsics=torch.eye(3).expand(B, 1, 3, 3),
        post_image=torch.eye(3).expand(B, 1, 3, 3),
        T_bda=torch.stack(
            [torch.diag(torch.tensor([1.0 - 2 * x, 1 - 2 * y, 1, 1])) for x, y in flips]
        ),
        points=None,
        depth=None,
    )


def sample_of(
    semantics: Tensor,  # (B, X, Y, Z)
    labelled: Sequence[bool] = (),
    mirror: Sequence[tuple[bool, bool]] = (),
) -> Batch:
    B, X, Y, _ = semantics.shape
    known = torch.tensor(labelled or [True] * B)
    return Batch(
        inputs=inputs(B, Y, X, mirror=mirror),
        semantics=semantics.to(torch.uint8),
        weight=known[:, None, None, None].expand(semantics.shape).float(),
        labelled=known,
        is_ground_truth=known,
    )


class Replay:
    """A teacher that says what it is told, and counts how often it is asked."""

    def __init__(self, bev: Tensor, logits: Tensor) -> None:
        self.bev, self.logits, self.asked = bev, logits, 0

    def __call__(self, sample: Batch) -> TeacherOutputs:
        self.asked += 1
        return TeacherOutputs(bev=self.bev, logits=self.logits, T_bda=sample.inputs.T_bda)


class LittleNetwork(nn.Module):
    """Pictures are BEV maps; a batch norm that would learn if it were let."""

    def __init__(
        self, channels: int, *, levels: int = 2, classes: int = 4, upsample: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.occ_head = OccupancyHead(
            channels,
            HeadConfig(
                conv_channels=5, hidden=6, levels=levels, classes=classes, bev_upsample=upsample
            ),
        )

    def bev(self, inputs: ModelInputs) -> Tensor:
        out: Tensor = self.norm(self.conv(inputs.images[:, 0]))
        return out


def distillation(
    teacher: Replay | FrozenTeacher,
    *,
    adapter: nn.Module | None = None,
    taxonomy: Taxonomy = STREET,
    **config: object,
) -> Distillation:
    return Distillation(
        DistillationConfig(**config),  # type: ignore[arg-type]
        taxonomy=taxonomy,
        teacher=teacher,
        adapter=adapter,
    )


def values(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: term.item() for name, term in terms.items()}


# --- by hand


def hand_made_maps() -> tuple[Tensor, Tensor]:
    """Student and teacher (1, C=2, Y=2, X=3) that differ by d and 3 d, d = 1..6 along x, then y."""
    d = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    teacher = torch.randn(1, 2, 2, 3, generator=torch.Generator().manual_seed(1))
    return teacher + torch.stack((d, -3 * d)), teacher


def test_feature_terms_by_hand() -> None:
    student, teacher = hand_made_maps()
    found = distillation(Replay(teacher, torch.zeros(1, 3, 2, 2, 4)), logits=False)(
        student, torch.empty(0), sample_of(SCENE[None])
    )
    # a cell's squared error is (d^2 + 9 d^2) / 2 channels = 5 d^2; cells are (x, y)
    foreground = (5 * 1 + 5 * 25) / 2  # (0, 0), (1, 1)
    background = (5 * 1 + 5 * 4 + 5 * 36) / 3  # (0, 0), (1, 0), (2, 1)
    empty = (5 * 9 + 5 * 16) / 2  # (2, 0), (0, 1)
    expected = dict(
        zip((f"bev_{r}" for r in REGIONS), (foreground, background, empty), strict=True)
    )
    assert values(found) == pytest.approx(expected, rel=1e-5)


def test_a_transposed_mask_would_be_noticed() -> None:
    student, teacher = hand_made_maps()
    error = (student - teacher).square().mean(1)  # (B, Y, X)
    regions = voxel_regions(SCENE[None], STREET)
    as_x_y = regions[0].any(-1)  # foreground as the published code leaves it, (B, X, Y)
    with pytest.raises(RuntimeError, match="must match"):
        error * as_x_y
    right = cell_regions(regions, (2, 3))[0]
    assert right.tolist() == [[[True, False, False], [False, True, False]]]
    assert error[right].mean().item() == pytest.approx(65, rel=1e-5)
    assert error[as_x_y.view(1, 2, 3)].mean().item() != pytest.approx(65, rel=0.1)


def test_on_a_square_grid_the_transposed_mask_gives_another_number() -> None:
    semantics = torch.full((1, 2, 2, 1), FREE, dtype=torch.uint8)
    semantics[0, 1, 0] = CAR  # x = 1, y = 0
    teacher = torch.zeros(1, 1, 2, 2)
    student = torch.tensor([[[[0.0, 3.0], [7.0, 0.0]]]])  # 3 at x = 1, y = 0
    terms = distillation(Replay(teacher, torch.zeros(1, 2, 2, 1, 4)), logits=False)(
        student, torch.empty(0), sample_of(semantics)
    )
    assert terms["bev_foreground"].item() == 9
    published = (student.square() * (semantics == CAR).any(-1)[:, None]).sum()
    assert published.item() == 49


def test_logit_terms_by_hand() -> None:
    student = torch.tensor([1.0, 0, 0, 0]).expand(1, 3, 2, 2, 4)
    answer = {
        CAR: [1.0, 1, 0, 0],
        ROAD: [0, 1.0, 0, 0],
        WALL: [-2.0, 0, 0, 0],
        FREE: [5.0, 0, 0, 0],
    }
    teacher = torch.tensor([answer[c] for c in SCENE.flatten().tolist()]).view(1, 3, 2, 2, 4)
    teacher[0, 0, 1, 0] = torch.tensor([0.0, 1, 0, 0])  # one of the 7 free voxels
    found = distillation(Replay(torch.zeros(1, 1, 2, 3), teacher), bev="none")(
        torch.zeros(1, 1, 2, 3), student, sample_of(SCENE[None])
    )
    assert values(found) == pytest.approx(
        {
            "logits_foreground": 0.292893,  # 1 - cos((1, 0), (1, 1))
            "logits_background": (1 + 1 + 2) / 3,
            "logits_empty": 1 / 7,
        },
        abs=1e-6,
    )


def test_plain_features_are_the_mean_absolute_difference_of_the_whole_map() -> None:
    student, teacher = hand_made_maps()
    plain = distillation(Replay(teacher, torch.zeros(1, 3, 2, 2, 4)), bev="plain", logits=False)
    sample = sample_of(SCENE[None])
    everywhere = plain(student, torch.empty(0), sample)
    assert values(everywhere) == pytest.approx({"bev": 2 * 21 / 6}, rel=1e-5)
    within = torch.zeros(1, 3, 2, 2, dtype=torch.bool)
    within[0, 2, 0, 1] = within[0, 0, 1] = True  # d is 3 and 4 there
    assert values(plain(student, torch.empty(0), sample, None, within)) == pytest.approx(
        {"bev": 2 * 3.5}, rel=1e-5
    )


def test_a_car_on_a_road_counts_as_foreground_and_as_background() -> None:
    cells = cell_regions(voxel_regions(SCENE[None], STREET), (2, 3))[:, 0]
    assert cells[:, 0, 0].tolist() == [True, True, False]
    assert cells[:, 1, 1].tolist() == [True, False, False]
    assert cells.sum((1, 2)).tolist() == [2, 3, 2]


def test_a_coarse_cell_is_empty_only_if_all_its_columns_are() -> None:
    semantics = torch.full((1, 4, 6, 1), FREE)
    semantics[0, 3, 0] = CAR
    semantics[0, 2, 1] = WALL
    semantics[0, 0, 5] = 255
    cells = cell_regions(voxel_regions(semantics, STREET), (3, 2))[:, 0]  # 2 x 2 columns each
    assert cells[0].tolist() == [[False, True], [False, False], [False, False]]
    assert cells[1].tolist() == [[False, True], [False, False], [False, False]]
    assert cells[2].tolist() == [[True, False], [True, True], [True, True]]


@pytest.mark.parametrize("taxonomy", [OCC3D_NUSCENES, OPENOCCUPANCY, STREET])
def test_regions_follow_from_the_taxonomy(taxonomy: Taxonomy) -> None:
    regions = voxel_regions(torch.arange(256), taxonomy)
    n = taxonomy.n_classes
    assert regions[:, :n].sum(0).eq(1).all() and not regions[:, n:].any()
    assert regions[0].nonzero().flatten().tolist() == sorted(taxonomy.foreground)
    assert regions[2].nonzero().flatten().tolist() == [taxonomy.free_id]
    if taxonomy is OCC3D_NUSCENES:  # as published: 0..10, 11..16, 17
        assert regions[1].nonzero().flatten().tolist() == list(range(11, 17))


def test_a_finer_map_of_the_teacher_is_averaged() -> None:
    fine = torch.arange(24.0).view(1, 1, 4, 6)
    assert pooled_to(fine, (2, 3)).flatten().tolist() == [3.5, 5.5, 7.5, 15.5, 17.5, 19.5]
    assert torch.equal(pooled_to(fine, (4, 6)), fine)
    for shape in ((3, 6), (8, 12)):
        with pytest.raises(ValueError, match="whole factor"):
            pooled_to(fine, shape)


# --- against a slow version


def slow_terms(
    student_bev: Tensor,  # (B, C, Y, X)
    teacher_bev: Tensor,  # (B, C, 2 Y, 2 X)
    student: Tensor,  # (B, X', Y', Z, K)
    teacher: Tensor,
    semantics: Tensor,
    labelled: list[bool],
    *,
    from_teacher: bool,
    columns: list[int] | None,
    within: Tensor,
) -> dict[str, float]:
    """Voxel by voxel and cell by cell."""
    B, X, Y, Z, _ = student.shape
    group = {CAR: "foreground", ROAD: "background", WALL: "background", FREE: "empty"}
    features: dict[str, list[float]] = {r: [] for r in REGIONS}
    logits: dict[str, list[float]] = {r: [] for r in REGIONS}
    for b in range(B):
        found: dict[tuple[int, int], set[str]] = {}
        for x, y, z in np.ndindex(X, Y, Z):
            c = int(semantics[b, x, y, z])
            if from_teacher or not labelled[b] or c == 255:
                c = int(teacher[b, x, y, z].argmax())
            if not within[b, x, y, z]:
                continue
            found.setdefault((x // 2, y // 2), set()).add(group[c])
            if columns is None or (b * X + x) * Y + y in columns:
                s, t = student[b, x, y, z].tolist(), teacher[b, x, y, z].tolist()
                dot = sum(p * q for p, q in zip(s, t, strict=True))
                logits[group[c]].append(1 - dot / (math.hypot(*s) * math.hypot(*t)))
        for (x, y), groups in found.items():
            coarse = teacher_bev[b, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((1, 2))
            error = float((student_bev[b, :, y, x] - coarse).square().mean())
            for r in REGIONS:
                if r in groups and (r != "empty" or groups == {"empty"}):
                    features[r].append(error)
    named = {f"bev_{r}": features[r] for r in REGIONS} | {f"logits_{r}": logits[r] for r in REGIONS}
    return {name: sum(e) / len(e) if e else 0.0 for name, e in named.items()}


@pytest.mark.parametrize("regions_from", ["labels", "teacher"])
@pytest.mark.parametrize("labelled", [[True, True, True], [False, True, False]])
@pytest.mark.parametrize("some_columns", [False, True])
@pytest.mark.parametrize("restricted", [False, True])
def test_equal_to_a_slow_version_on_a_grid_that_is_not_square(
    regions_from: str, labelled: list[bool], some_columns: bool, restricted: bool
) -> None:
    generator = torch.Generator().manual_seed(7)
    B, C, X, Y, Z = 3, 3, 4, 6, 2
    semantics = torch.randint(0, 9, (B, X, Y, Z), generator=generator).clamp(max=FREE)
    semantics[torch.rand(semantics.shape, generator=generator) < 0.1] = 255
    student_bev = torch.randn(B, C, Y // 2, X // 2, generator=generator)
    teacher_bev = torch.randn(B, C, Y, X, generator=generator)
    student = torch.randn(B, X, Y, Z, 4, generator=generator)
    teacher = torch.randn(B, X, Y, Z, 4, generator=generator)
    teacher[..., FREE] += 2
    within = torch.ones(semantics.shape, dtype=torch.bool)
    if restricted:
        within = torch.rand(semantics.shape, generator=generator) > 0.5
    index = torch.randperm(B * X * Y, generator=generator)[:20] if some_columns else None
    terms = distillation(Replay(teacher_bev, teacher), regions_from=regions_from)(
        student_bev,
        student if index is None else student.flatten(0, 2)[index],
        sample_of(semantics, labelled),
        index,
        within if restricted else None,
    )
    expected = slow_terms(
        student_bev,
        teacher_bev,
        student,
        teacher,
        semantics,
        labelled,
        from_teacher=regions_from == "teacher",
        columns=None if index is None else index.tolist(),
        within=within,
    )
    assert values(terms) == pytest.approx(expected, rel=1e-4)
    assert all(value > 0 for value in expected.values())


# --- switches and limits


def test_what_is_switched_off_gives_no_term_and_wakes_no_teacher() -> None:
    student, teacher = hand_made_maps()
    logits = torch.randn(1, 3, 2, 2, 4)
    replay = Replay(teacher, logits)
    sample = sample_of(SCENE[None])
    names = {
        bev: set(distillation(replay, bev=bev)(student, logits, sample))
        for bev in ("regions", "plain", "none")
    }
    of_logits = {f"logits_{r}" for r in REGIONS}
    assert names == {
        "regions": {f"bev_{r}" for r in REGIONS} | of_logits,
        "plain": {"bev"} | of_logits,
        "none": of_logits,
    }
    asked = replay.asked
    assert distillation(replay, bev="none", logits=False)(student, logits, sample) == {}
    assert replay.asked == asked


def test_factors_scale_their_terms() -> None:
    student, teacher = hand_made_maps()
    generator = torch.Generator().manual_seed(2)
    ours, its = torch.randn(2, 1, 3, 2, 2, 4, generator=generator)
    sample, replay = sample_of(SCENE[None]), Replay(teacher, its)
    plain = values(distillation(replay)(student, ours, sample))
    scaled = values(distillation(replay, bev_weight=0.5, logit_weight=3.0)(student, ours, sample))
    assert scaled == pytest.approx(
        {name: v * (0.5 if name.startswith("bev") else 3) for name, v in plain.items()}
    )


def test_a_region_without_voxels_costs_nothing() -> None:
    student = torch.randn(1, 2, 2, 3, requires_grad=True)
    logits = torch.randn(1, 3, 2, 2, 4, requires_grad=True)
    replay = Replay(torch.zeros(1, 2, 2, 3), torch.ones(1, 3, 2, 2, 4))
    all_free = sample_of(torch.full((1, 3, 2, 2), FREE))
    terms = distillation(replay)(student, logits, all_free)
    absent = [terms[f"{kind}_{r}"] for kind in ("bev", "logits") for r in REGIONS[:2]]
    torch.stack(absent).sum().backward()
    assert [term.item() for term in absent] == [0.0] * 4
    assert student.grad is not None and not student.grad.any()
    assert logits.grad is not None and not logits.grad.any()
    assert terms["bev_empty"] > 0 and terms["logits_empty"] > 0


def test_the_same_features_and_logits_cost_nothing_whatever_the_logits_scale() -> None:
    _, teacher = hand_made_maps()
    logits = torch.randn(1, 3, 2, 2, 4)
    terms = distillation(Replay(teacher, logits))(teacher, 3 * logits, sample_of(SCENE[None]))
    assert values(terms) == pytest.approx(dict.fromkeys(terms, 0.0), abs=1e-6)


def test_outputs_that_do_not_fit_are_refused() -> None:
    sample = sample_of(SCENE[None])
    bev, logits = torch.zeros(1, 2, 2, 3), torch.zeros(1, 3, 2, 2, 4)
    with pytest.raises(ValueError, match="need an adapter"):
        distillation(Replay(torch.zeros(1, 5, 2, 3), logits))(bev, logits, sample)
    with pytest.raises(ValueError, match="not on the grid"):
        distillation(Replay(bev, torch.zeros(1, 2, 3, 2, 4)))(bev, logits, sample)
    with pytest.raises(ValueError, match="logits of the student"):
        distillation(Replay(bev, torch.zeros(1, 3, 2, 2, 5)))(bev, logits, sample)
    with pytest.raises(ValueError, match="do not divide"):
        cell_regions(voxel_regions(SCENE[None], STREET), (4, 3))
    with pytest.raises(ValueError, match="expected bev"):
        TeacherOutputs(bev=bev, logits=logits[0], T_bda=torch.eye(4)[None])
    with pytest.raises(ValueError, match="no distillation with a flow"):
        DistillationObjective(
            LabelLoss(taxonomy=STREET, flow=0.25), distillation(Replay(bev, logits))
        )


@pytest.mark.parametrize(
    "wrong",
    [{"bev": "l1"}, {"regions_from": "both"}, {"bev_weight": -1.0}, {"logit_weight": math.nan}],
)
def test_a_configuration_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        DistillationConfig(**wrong)  # type: ignore[arg-type]


# --- outputs kept from before


@pytest.mark.parametrize("flip", [(True, False), (False, True), (True, True)])
def test_kept_outputs_are_mirrored_like_labels(flip: tuple[bool, bool]) -> None:
    generator = torch.Generator().manual_seed(3)
    semantics = torch.randint(0, 4, (1, 3, 2, 2), generator=generator)
    bev, logits = torch.randn(1, 2, 2, 3, generator=generator), torch.eye(4)[semantics]
    kept = TeacherOutputs(bev=bev, logits=logits, T_bda=torch.eye(4)[None])
    mirrored = inputs(1, 2, 3, mirror=[flip]).T_bda
    seen = kept.seen_under(mirrored)
    target = Target(
        semantics=semantics[0].numpy().astype(np.uint8), weight=np.ones((3, 2, 2), np.float32)
    ).mirrored(x=flip[0], y=flip[1])
    assert np.array_equal(seen.logits[0].argmax(-1).numpy(), target.semantics)
    x, y = (2 if flip[0] else 0), (1 if flip[1] else 0)
    assert torch.equal(seen.bev[0, :, y, x], bev[0, :, 0, 0])
    back = seen.seen_under(kept.T_bda)
    assert torch.equal(back.bev, bev) and torch.equal(back.logits, logits)
    assert torch.equal(kept.bev, bev), "the kept outputs were changed"


def test_each_frame_of_a_batch_is_mirrored_for_itself() -> None:
    bev, logits = torch.randn(3, 1, 2, 3), torch.randn(3, 3, 2, 1, 4)
    kept = TeacherOutputs(bev=bev, logits=logits, T_bda=torch.eye(4).repeat(3, 1, 1))
    flips = [(False, False), (True, False), (False, True)]
    seen = kept.seen_under(inputs(3, 2, 3, mirror=flips).T_bda)
    assert torch.equal(seen.bev, torch.stack((bev[0], bev[1].flip(2), bev[2].flip(1))))
    assert torch.equal(seen.logits, torch.stack((logits[0], logits[1].flip(0), logits[2].flip(1))))


def test_frames_that_differ_by_more_than_a_mirror_are_refused() -> None:
    kept = TeacherOutputs(
        bev=torch.zeros(1, 1, 2, 3), logits=torch.zeros(1, 3, 2, 1, 4), T_bda=torch.eye(4)[None]
    )
    shifted, upside_down = torch.eye(4)[None], torch.diag(torch.tensor([1.0, 1, -1, 1]))[None]
    shifted[0, 0, 3] = 1.0
    for T_bda in (shifted, upside_down, 2 * torch.eye(4)[None]):
        with pytest.raises(ValueError, match="more than mirrored"):
            kept.seen_under(T_bda)


def test_kept_outputs_give_the_terms_of_the_mirrored_scene() -> None:
    student_bev, bev = hand_made_maps()
    logits = torch.randn(1, 3, 2, 2, 4)
    student = torch.randn(1, 3, 2, 2, 4)
    kept = TeacherOutputs(bev=bev, logits=logits, T_bda=torch.eye(4)[None])
    upright = Distillation(DistillationConfig(), taxonomy=STREET, teacher=lambda _: kept)
    as_is = values(upright(student_bev, student, sample_of(SCENE[None])))
    mirrored_x = sample_of(SCENE[None].flip(1), mirror=[(True, False)])
    seen = values(upright(student_bev.flip(3), student.flip(1), mirrored_x))
    assert seen == pytest.approx(as_is, rel=1e-5)


# --- the teacher never learns


def frozen_pair(*, adapter: bool = False) -> tuple[LittleNetwork, FrozenTeacher, Distillation]:
    torch.manual_seed(0)
    teacher = FrozenTeacher(LittleNetwork(4))
    student = LittleNetwork(3 if adapter else 4)
    return student, teacher, distillation(teacher, adapter=nn.Conv2d(3, 4, 1) if adapter else None)


def random_sample(labelled: Sequence[bool], X: int = 5, Y: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(4)
    return sample_of(torch.randint(0, 4, (len(labelled), X, Y, 2), generator=generator), labelled)


def test_the_teacher_is_the_same_after_training_to_the_last_bit() -> None:
    student, teacher, terms = frozen_pair(adapter=True)
    objective = DistillationObjective(CE, terms)
    before = copy.deepcopy(teacher.network.state_dict())
    optimiser = torch.optim.AdamW([*student.parameters(), *objective.parameters()], lr=0.1)
    for step in range(3):
        student.train()
        objective.train()
        teacher.network.train()  # whoever does this, it stays without effect
        losses = objective(student, random_sample([True, False]), step)
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    after = teacher.network.state_dict()
    assert before.keys() == after.keys() and "norm.running_mean" in after
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(module.training for module in teacher.network.modules())
    assert all(parameter.grad is None for parameter in teacher.network.parameters())


def test_the_teacher_uses_its_running_statistics_not_the_batchs() -> None:
    _, teacher, _ = frozen_pair()
    sample = random_sample([True, True])
    together = teacher(sample)
    alone = teacher(sample.parts(2)[0])
    torch.testing.assert_close(together.bev[:1], alone.bev)
    torch.testing.assert_close(together.logits[:1], alone.logits)


def test_the_teacher_is_no_part_of_what_is_trained_saved_or_averaged() -> None:
    student, _, terms = frozen_pair(adapter=True)
    objective = DistillationObjective(CE, terms)
    assert terms.adapter is not None
    assert {id(p) for p in objective.parameters()} == {id(p) for p in terms.adapter.parameters()}
    assert set(objective.state_dict()) == {
        "distillation.adapter.weight",
        "distillation.adapter.bias",
    }
    assert not any("adapter" in name or "teacher" in name for name in student.state_dict())
    with pytest.raises(ValueError, match="FrozenTeacher"):
        Distillation(DistillationConfig(), taxonomy=STREET, teacher=LittleNetwork(4))


def test_the_adapter_learns_from_the_feature_terms() -> None:
    student, _, terms = frozen_pair(adapter=True)
    sample = random_sample([True])
    losses = terms(student.bev(sample.inputs), student.occ_head(student.bev(sample.inputs)), sample)
    losses["bev_background"].backward()
    assert terms.adapter is not None
    for parameter in [*terms.adapter.parameters(), *student.conv.parameters()]:
        assert parameter.grad is not None and parameter.grad.any()


def test_trunks_and_heads_run_once_a_step() -> None:
    student, teacher, terms = frozen_pair()
    calls: list[str] = []
    for name, network in (("student", student), ("teacher", teacher.network)):
        for part in ("norm", "occ_head.final_conv"):
            network.get_submodule(part).register_forward_hook(
                lambda *_, seen=f"{name} {part}": calls.append(seen)
            )
    for columns in (None, 4):
        calls.clear()
        objective = DistillationObjective(LabelLoss(taxonomy=STREET, columns=columns), terms)
        objective(student, random_sample([True, False]), 0)
        for name in ("student", "teacher"):
            assert calls.count(f"{name} norm") == 1
            assert calls.count(f"{name} occ_head.final_conv") == 1


# --- with a label loss


def test_the_objective_is_the_label_loss_and_the_distillation() -> None:
    student, _, terms = frozen_pair()
    student.eval()
    sample = random_sample([True, True])
    losses = DistillationObjective(CE, terms)(student, sample, 0)
    bev = student.bev(sample.inputs)
    expected = values(CE(student, sample, 0) | terms(bev, student.occ_head(bev), sample))
    assert len(expected) == 7
    assert values(losses) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("columns", [None, 4])
@pytest.mark.parametrize("logits", [True, False])
def test_frames_without_labels_give_distillation_terms_only(
    columns: int | None, logits: bool
) -> None:
    student, teacher, _ = frozen_pair()
    objective = DistillationObjective(
        LabelLoss(taxonomy=STREET, columns=columns), distillation(teacher, logits=logits)
    )
    losses = objective(student, random_sample([False, False]), 0)
    assert losses["ce"].item() == 0
    losses["ce"].backward(retain_graph=True)
    assert not any(p.grad is not None and p.grad.any() for p in student.parameters())
    assert losses["bev_empty"].item() + losses["bev_background"].item() > 0
    torch.stack(list(losses.values())).sum().backward()
    assert student.conv.weight.grad is not None and student.conv.weight.grad.any()


def test_sampling_every_column_is_the_same_as_sampling_none() -> None:
    student, _, terms = frozen_pair()
    student.eval()
    sample = random_sample([True, False, True])
    whole = DistillationObjective(CE, terms)(student, sample, 0)
    every = LabelLoss(taxonomy=STREET, columns=15)
    assert values(DistillationObjective(every, terms)(student, sample, 0)) == pytest.approx(
        values(whole), rel=1e-5
    )


def test_columns_of_frames_without_labels_are_drawn_anew_in_every_draw_and_reproducibly() -> None:
    student, _, terms = frozen_pair()
    student.eval()
    objective = DistillationObjective(LabelLoss(taxonomy=STREET, columns=3), terms)
    sample = random_sample([False, False])
    later = dataclasses.replace(sample, first_draw=2)
    first, again = (values(objective(student, sample, 0)) for _ in range(2))
    assert first == again
    assert values(objective(student, later, 1))["logits_empty"] != first["logits_empty"]


def test_terms_can_be_kept_to_what_the_labels_cover() -> None:
    sample = random_sample([True, False])
    weight = sample.weight.clone()
    weight[0, :3] = 0
    sample = dataclasses.replace(sample, weight=weight)
    covered = used_voxels(sample)
    assert not covered[0, :3].any() and covered[0, 3:].all() and covered[1].all()
    student, _, terms = frozen_pair()
    student.eval()
    bev = student.bev(sample.inputs)
    expected = values(terms(bev, student.occ_head(bev), sample, None, covered))
    found = values(DistillationObjective(CE, terms, within=used_voxels)(student, sample, 0))
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    everywhere = values(DistillationObjective(CE, terms)(student, sample, 0))
    differing = [n for n in expected if everywhere[n] != pytest.approx(expected[n], rel=1e-3)]
    assert {"bev_foreground", "logits_foreground"} <= set(differing)


def test_a_student_with_a_coarser_map_learns_from_a_finer_teacher() -> None:
    torch.manual_seed(0)
    teacher = Replay(torch.randn(1, 4, 4, 6), torch.randn(1, 6, 4, 2, 4))
    student = LittleNetwork(4, upsample=2)
    sample = random_sample([True], X=6, Y=4)
    coarse = dataclasses.replace(sample, inputs=inputs(1, 2, 3))
    for columns in (None, 5):
        objective = DistillationObjective(
            LabelLoss(taxonomy=STREET, columns=columns), distillation(teacher)
        )
        losses = objective(student, coarse, 0)
        assert len(losses) == 7 and all(torch.isfinite(term) for term in losses.values())


def test_label_terms_keep_their_masses() -> None:
    _, _, terms = frozen_pair()
    objective = DistillationObjective(CE, terms)
    sample = random_sample([True, False])
    assert isinstance(objective, Weighted)
    assert values(objective.weight_sums(sample)) == values(CE.weight_sums(sample)) == {"ce": 30.0}


def test_training_trains_the_adapter_and_leaves_it_out_of_the_student(tmp_path: Path) -> None:
    student, teacher, terms = frozen_pair(adapter=True)
    assert isinstance(terms.adapter, nn.Conv2d)
    before, its = terms.adapter.weight.clone(), copy.deepcopy(teacher.network.state_dict())
    sample = random_sample([True, False])
    trained = train(
        student,
        [sample] * 2,
        objective=DistillationObjective(CE, terms),
        config=TrainingConfig(steps=2, precision="float32"),
        folder=tmp_path,
        identity={},
    )
    assert not torch.equal(terms.adapter.weight, before)
    assert trained.network.state_dict().keys() == LittleNetwork(3).state_dict().keys()
    assert all(torch.equal(its[name], v) for name, v in teacher.network.state_dict().items())


# --- the inherited head, and the inputs of both


def test_an_inherited_head_is_the_teachers_and_then_the_students_own() -> None:
    teacher, student = LittleNetwork(4), LittleNetwork(4)
    inherit_head(student, teacher)
    its = copy.deepcopy(teacher.occ_head.state_dict())
    mine = student.occ_head.state_dict()
    assert all(torch.equal(mine[name], its[name]) for name in its)
    with torch.no_grad():
        for parameter in student.occ_head.parameters():
            parameter.zero_()
    assert all(torch.equal(v, its[name]) for name, v in teacher.occ_head.state_dict().items())


@pytest.mark.parametrize(
    ("student", "named"),
    [
        (LittleNetwork(3), r"occ_head.final_conv.conv.weight is \(5, 3, 3, 3\) in the student"),
        (LittleNetwork(4, classes=5), r"occ_head.predicter.2.bias is \(10,\)"),
    ],
)
def test_a_head_of_another_shape_cannot_be_inherited(student: LittleNetwork, named: str) -> None:
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(SetupError, match=named):
        inherit_head(student, LittleNetwork(4))
    assert all(torch.equal(before[name], v) for name, v in student.state_dict().items())


def test_a_head_with_other_layers_cannot_be_inherited() -> None:
    with_flow = LittleNetwork(4)
    config = dataclasses.replace(with_flow.occ_head.config, flow=True)
    with_flow.occ_head = OccupancyHead(4, config)
    with pytest.raises(
        SetupError, match=r"flow_predicter.0.bias is \(6,\) in the student and None"
    ):
        inherit_head(with_flow, LittleNetwork(4))


def test_the_published_student_can_inherit_the_published_teachers_head() -> None:
    networks = [preset(name).network for name in ("flashocc_r50_distill", "fusion_r18_occ3d")]
    channels = [networks[0].trunk.neck_channels, networks[1].trunk.out_channels]  # type: ignore[union-attr]
    student, teacher = (
        nn.ModuleDict({"occ_head": OccupancyHead(c, network.head)})
        for c, network in zip(channels, networks, strict=True)
    )
    inherit_head(student, teacher)


def test_both_read_one_batch() -> None:
    student, teacher = preset("camera_tiny").inputs, preset("city_tiny").inputs
    joint = joint_inputs(student, teacher)
    assert joint.lidar and joint.past_sweeps == teacher.past_sweeps
    stereo = dataclasses.replace(student, past_frames=8)
    assert joint_inputs(stereo, teacher).past_frames == 8
    for wrong in (
        dataclasses.replace(teacher, width=704),
        dataclasses.replace(teacher, reference_parity=True),
        dataclasses.replace(teacher, frame="lidar"),
        dataclasses.replace(teacher, past_frames=2),
    ):
        with pytest.raises(SetupError, match="cannot read one batch"):
            joint_inputs(student, wrong)


def test_a_teacher_that_reads_points_says_so_when_there_are_none() -> None:
    teacher = FrozenTeacher(build("city_tiny"))
    with pytest.raises(ValueError, match="reads LiDAR points"):
        teacher(random_sample([True]))
