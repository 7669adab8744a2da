"""The example cluster file: what Ray makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
CLUSTER = SCRIPTS / "cluster.yaml"


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster-aws.yaml"])
def test_ray_accepts_the_example_clusters(name: str) -> None:
    validate_config(prepare_config(yaml.safe_load((SCRIPTS / name).read_text())))


def test_starting_the_cluster_ends_nobody_elses_ray() -> None:
    config = prepare_config(yaml.safe_load(CLUSTER.read_text()))
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert config[key], key
        assert not [line for line in config[key] if "ray stop" in line]
