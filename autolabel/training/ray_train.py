"""One training in several processes, on one machine or many, through Ray Train.

Each process prepares and computes its share of every batch; gradients are averaged by
``DistributedDataParallel``. The state on disk, on a file system that all nodes see, is the only
checkpoint: processes that died are started again and go on from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from datasets.cli.supervisor import leaving
from datasets.errors import AutolabelError, SetupError
from models.training.loop import SINGLE_PROCESS, ProcessGroup

Train = Callable[[ProcessGroup], int]
"""Trains as one of a team and gives an exit code; must pickle, and name absolute paths."""

RESTARTS = 3


def train_together(
    train: Train, workers: int, *, device: str, folder: Path, address: str | None = None
) -> int:
    """Run a training in so many processes; one alone needs no Ray.

    Args:
        folder: of the run; Ray Train keeps its notes in ``ray`` there.
        address: Ray cluster to join (see ``connect``).

    Returns:
        The first worker's exit code.

    Raises:
        SetupError: Ray Train is not installed or the cluster has too little room, or as ``train``.
    """
    if workers == 1:
        return train(SINGLE_PROCESS)
    os.environ["RAY_TRAIN_V2_ENABLED"] = "1"
    os.environ["RAY_TRAIN_ENABLE_PRINT_PATCH"] = "0"  # it would print everything twice
    try:
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
        from ray.train.torch import TorchTrainer

        from autolabel.cluster.ray_cluster import connect
    except ImportError as error:
        raise SetupError(
            f"--nproc {workers} needs the extra 'distributed': pip install "
            f"'effocc-autolabel[distributed]' ({error})"
        ) from error
    # Ray takes interrupts badly, and the state on disk is whole at any moment
    with leaving("at once"):
        connect(address, show_workers=True)
        on_gpu = torch.device(device).type == "cuda"
        kind = "GPU" if on_gpu else "CPU"
        room = int(ray.cluster_resources().get(kind, 0))
        if room < workers:
            raise SetupError(f"--nproc {workers}: the Ray cluster has {room} {kind}s")
        trainer = TorchTrainer(
            _one_of_them,
            train_loop_config={"train": train, "device": device},
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=on_gpu),
            run_config=RunConfig(
                name="training",
                storage_path=str(folder.resolve() / "ray"),
                failure_config=FailureConfig(max_failures=RESTARTS),
            ),
        )
        try:
            result = trainer.fit()
        except TrainingFailedError as error:
            raise SetupError(f"the training failed: {_reason(error)}") from error
        finally:
            ray.shutdown()
        return int(result.return_value)


def _one_of_them(config: dict[str, Any]) -> int:
    from ray import train as ray_train
    from ray.train.torch import get_device

    if torch.device(config["device"]).type == "cuda":
        torch.cuda.set_device(get_device())
    context = ray_train.get_context()
    process_group = ProcessGroup(rank=context.get_world_rank(), world_size=context.get_world_size())
    return int(config["train"](process_group))


def _reason(error: Exception) -> str:
    """What a worker said, in a line."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause = getattr(failure, "cause", None) or failure.__cause__ or failure
        if isinstance(cause, AutolabelError | ValueError):
            return str(cause)
    return str(error).strip().split("\n")[-1]
