"""The optimisation loop that teacher and student share.

AdamW, a schedule of the learning rate, gradient-norm clipping and a moving average of the weights.
The state on disk continues a stopped run; on a CPU, with the same number of threads, to the very
same weights: whatever is random follows from the seed and the step.

Legend: B frames of a step, divided among workers and then into parts.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.utils.deterministic as torch_deterministic
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

from datasets.errors import SetupError
from datasets.files.json_files import canonical_text, json_text, write_json
from datasets.loading.batch import Batch
from datasets.loading.frame_dataset import FrameDataset
from models.training.data_loader import steps_loader
from models.training.objectives import Objective, Weighted
from models.training.report import TrainingLog, TrainingReport
from models.training.resume_state import load_state, restoring, save_state
from models.training.schedules import Average, Schedule, WarmCosine, WarmupEMA

Precision = Literal["float32", "bfloat16", "float16"]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_OF_NO_EFFECT = ("save_every", "log_every", "validate_every", "loaders")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """One training run.

    Attributes:
        steps: optimisation steps.
        learning_rate: peak of the schedule.
        schedule, average: of the learning rate, and of the moving average of the weights.
        weight_decay, clip_norm: AdamW's decay and the largest gradient norm (L2).
        precision: of the networks under autocast; weights and geometry stay float32. ``float16``
            scales the loss and needs CUDA.
        accumulation_steps: compute a batch in so many equal parts, to save memory. Gradients are
            those of the whole batch, except that batch norms see one part at a time.
        seed: decides dropout; data set and objective have their own.
        threads: of torch on a CPU; 0 leaves them as they are.
        save_every, log_every: steps between states on disk and lines in the log.
        validate_every: steps between validations; 0: none but the one at the end.
        loaders: processes that prepare batches ahead; 0: none.
    """

    steps: int
    learning_rate: float = 2e-3
    schedule: Schedule = field(default_factory=WarmCosine)
    average: Average = field(default_factory=WarmupEMA)
    weight_decay: float = 1e-2
    clip_norm: float = 5.0
    precision: Precision = "bfloat16"
    accumulation_steps: int = 1
    seed: int = 0
    threads: int = 0
    save_every: int = 200
    log_every: int = 20
    validate_every: int = 0
    loaders: int = 1

    def __post_init__(self) -> None:
        if min(self.steps, self.accumulation_steps, self.save_every, self.log_every) < 1:
            raise ValueError(
                f"steps, accumulation_steps, save_every and log_every must be positive: {self}"
            )
        if self.precision not in _DTYPES:
            raise ValueError(f"precision must be one of {', '.join(_DTYPES)}: {self.precision!r}")
        if self.learning_rate <= 0 or min(self.threads, self.validate_every, self.loaders) < 0:
            raise ValueError(f"the learning rate must be positive, counts not negative: {self}")

    def identity_fields(self) -> dict[str, Any]:
        """The settings that the weights depend on, by their names in files."""
        fields = {name: value for name, value in asdict(self).items() if name not in _OF_NO_EFFECT}
        return {"parts" if name == "accumulation_steps" else name: v for name, v in fields.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessGroup:
    """The processes that train one network together; ``torch.distributed`` connects several."""

    rank: int = 0
    world_size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What ``fit`` gives.

    Attributes:
        network: the averaged weights, in eval mode.
    """

    network: nn.Module
    report: TrainingReport


SINGLE_PROCESS = ProcessGroup()
Validate = Callable[[nn.Module], Mapping[str, float]]


def fit(
    network: nn.Module,
    dataset: FrameDataset,
    *,
    objective: Objective,
    config: TrainingConfig,
    folder: Path,
    device: str = "cpu",
    job: Mapping[str, Any] | None = None,
    validate: Validate | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> Trained:
    """Train on a set, going on from the state in ``folder`` if a run was stopped there.

    Args:
        job: whatever else the weights depend on, as JSON values: part of the run's identity.
        validate: scores of the averaged network, in percent or the like, for log and report.
        process_group: in each of several processes: which one this is.

    Raises:
        SetupError: the folder holds a run with another configuration, or every frame is bad.
        ValueError: the loss is not finite.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    identity = json.loads(
        json_text(
            {
                "config": config.identity_fields(),
                "samples": dataset.fingerprint(),
                "data": dataset.data(),
                "workers": process_group.world_size,
                "job": dict(job or {}),
            }
        )
    )
    if config.precision == "float16" and torch.device(device).type != "cuda":
        raise SetupError("float16 needs CUDA; bfloat16 trains anywhere")
    start, state = load_state(folder, identity)
    if process_group.rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        described = {**identity, "sha256": _sha256(identity)}
        write_json(folder / "config.json", described)
    part = dataset.share(process_group.rank, process_group.world_size)
    return train(
        network,
        steps_loader(part, start, config.steps, config.loaders),
        objective=objective,
        config=config,
        folder=folder,
        identity=identity,
        start=start,
        state=state,
        device=device,
        validate=validate,
        process_group=process_group,
    )


def train(
    network: nn.Module,
    batches: Iterable[Batch],
    *,
    objective: Objective,
    config: TrainingConfig,
    folder: Path,
    identity: Mapping[str, Any],
    start: int = 0,
    state: dict[str, Any] | None = None,
    device: str = "cpu",
    validate: Validate | None = None,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> Trained:
    """The loop of ``fit`` over batches from anywhere: those of steps ``start`` to
    ``config.steps - 1``, this worker's part of each.

    Args:
        identity: of the run; a state is continued by a run of the same one.
        start, state: where a stopped run goes on, from ``load_state``.
    """
    stepping = _Stepping(network, objective).to(device).train()
    average = copy.deepcopy(network).eval().requires_grad_(False)
    trained = [p for p in stepping.parameters() if p.requires_grad]
    optimiser = AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
    scaler = torch.amp.GradScaler(enabled=config.precision == "float16")
    if state is not None:
        with restoring(folder):
            stepping.load_state_dict(state["stepping"])
            average.load_state_dict(state["average"])
            optimiser.load_state_dict(state["optimiser"])
            scaler.load_state_dict(state["scaler"])
    parallel: nn.Module = stepping
    if process_group.world_size > 1:
        devices = None if torch.device(device).type == "cpu" else [torch.cuda.current_device()]
        parallel = DistributedDataParallel(stepping, devices, find_unused_parameters=True)
    with restoring(folder):
        log = TrainingLog(
            folder,
            start=start,
            steps=config.steps,
            log_every=config.log_every,
            clock=None if state is None else state["clock"],
            rank=process_group.rank,
            world_size=process_group.world_size,
        )
    with reproducible(device), log:
        for step, batch in log.timed(batches):
            torch.manual_seed((config.seed * 1_000_003 + step) * 1009 + process_group.rank)
            rate = config.learning_rate * config.schedule.factor(step, config.steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.zero_grad(set_to_none=True)
            terms = _backward(
                parallel, objective, batch.to(device), step, scaler, config, process_group
            )
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(trained, config.clip_norm)
            scaler.step(optimiser)
            scaler.update()
            _update_average(average, network, config.average.at(step))
            log.note(step, terms, rate)

            done = step + 1
            last = done == config.steps
            if validate and (last or (config.validate_every and done % config.validate_every == 0)):
                with log.stopped():
                    log.note_scores(done, validate(average) if process_group.rank == 0 else {})
            if last or done % config.save_every == 0:
                with log.stopped():
                    _tell_each_other(log, process_group)
                    state = {
                        "step": done,
                        "identity": dict(identity),
                        "threads": torch.get_num_threads(),
                        "stepping": stepping.state_dict(),
                        "average": average.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "scaler": scaler.state_dict(),
                        "clock": log.clock(),
                    }
                    if process_group.rank == 0:
                        save_state(folder / "state.pt", state)
    return Trained(network=average, report=log.report())


class _Stepping(nn.Module):
    """The objective as a module's forward, which is where data-parallel training listens.

    An objective that is a module itself has its parameters trained along.
    """

    def __init__(self, network: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.network, self.objective = network, objective

    def forward(self, batch: Batch, step: int) -> dict[str, Tensor]:
        return self.objective(self.network, batch, step)


def _backward(
    parallel: nn.Module,
    objective: Objective,
    batch: Batch,
    step: int,
    scaler: torch.amp.GradScaler,
    config: TrainingConfig,
    process_group: ProcessGroup,
) -> dict[str, float]:
    """Gradients of the whole step's loss; gives its terms."""
    parts = batch.parts(config.accumulation_steps)
    totals: dict[str, Tensor] = {}
    device = batch.weight.device.type
    for i, (part, shares) in enumerate(
        zip(parts, _shares(objective, parts, process_group), strict=True)
    ):
        with ExitStack() as stack:
            if isinstance(parallel, DistributedDataParallel) and i + 1 < len(parts):
                stack.enter_context(parallel.no_sync())
            dtype = _DTYPES[config.precision]
            with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                terms = parallel(part, step)
            terms = {n: t.float() * shares.get(n, 1 / len(parts)) for n, t in terms.items()}
            scaler.scale(torch.stack(list(terms.values())).sum()).backward()  # type: ignore[no-untyped-call]
        for name, term in terms.items():
            totals[name] = totals.get(name, torch.zeros_like(term)) + term.detach()
    values = torch.stack(list(totals.values()))
    if process_group.world_size > 1:
        dist.all_reduce(values)
        values /= process_group.world_size
    means = dict(zip(totals, values.tolist(), strict=True))
    if not values.isfinite().all():
        raise ValueError(f"step {step}: the loss is {means}")
    return means


def _shares(
    objective: Objective, parts: list[Batch], process_group: ProcessGroup
) -> list[dict[str, Tensor]]:
    """What each part's term counts in the whole step's mean, where that is not by frames.

    Workers' gradients are averaged afterwards, so shares are relative to a worker's even share.
    """
    if len(parts) * process_group.world_size == 1 or not isinstance(objective, Weighted):
        return [{} for _ in parts]
    weight_sums = [objective.weight_sums(part) for part in parts]
    names = list(weight_sums[0])
    if not names:
        return [{} for _ in parts]
    sums = torch.stack([torch.stack([of_part[name] for name in names]) for of_part in weight_sums])
    total = sums.sum(0)
    if process_group.world_size > 1:
        dist.all_reduce(total)
    shares = (sums / total.where(total > 0, 1) * process_group.world_size).float()
    return [dict(zip(names, row, strict=True)) for row in shares]


def _tell_each_other(log: TrainingLog, process_group: ProcessGroup) -> None:
    if process_group.world_size > 1:
        news: list[Any] = [None] * process_group.world_size
        dist.all_gather_object(news, log.news())
        log.learn(news)


@contextmanager
def reproducible(device: str) -> Iterator[None]:
    """On a CPU, the same sums in the same order whatever the load. Elsewhere nothing changes."""
    if torch.device(device).type != "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch_deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    torch_deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch_deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


@torch.no_grad()
def _update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    for averaged, new in zip(
        average.state_dict().values(), network.state_dict().values(), strict=True
    ):
        if averaged.is_floating_point():
            averaged.lerp_(new, 1 - decay)
        else:
            averaged.copy_(new)


def _sha256(value: Any) -> str:
    return hashlib.sha256(canonical_text(value).encode()).hexdigest()
