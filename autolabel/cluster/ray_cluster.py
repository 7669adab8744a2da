"""Join or start a Ray cluster; its capacity for workers."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import RayError

from autolabel.cluster.worker import Job
from datasets.errors import SetupError
from datasets.files.temporary import private_folder

START_TIMEOUT_S = 300.0
CHECKED_RAY = (2, 60)
"""Lowest Ray version whose token authentication was checked with this package."""
AUTHENTICATED_RAY = (2, 52)
"""Ray's first version with token authentication (docs.ray.io, "Ray token authentication")."""


def connect(
    address: str | None, *, python_path: str | None = None, show_workers: bool = False
) -> None:
    """Join or start Ray, and make sure that its workers can import this package.

    A Ray that is started here listens on this machine's loopback only. Joining one whose
    authentication is not known to work prints a warning.

    Args:
        address: a cluster, ``auto``, or ``local``. None: what ``RAY_ADDRESS`` says, or a cluster
            that ``ray start`` began on this machine, or else a local Ray of this process.
        python_path: folder of the package where it is not installed.
        show_workers: print what workers print.

    Raises:
        SetupError: there is no such cluster, or its workers cannot import the package.
    """
    _find_home()
    _check_reachable(address or os.environ.get("RAY_ADDRESS", ""))
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # its working folder travels already
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # colours would be escaped
    environment = None
    if python_path is not None and not submitted:
        paths = [python_path, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}}
    joins = _joins(address)
    if joins and (warning := authentication_warning(ray.__version__)):
        print(f"warning: {warning}", file=sys.stderr)
    try:
        with contextlib.nullcontext() if joins else _on_loopback():
            ray.init(
                address=address,
                include_dashboard=None if joins else False,
                runtime_env=environment,
                logging_level=logging.ERROR,
                log_to_driver=show_workers,
            )
    except Exception as error:  # of no more particular type where a node does not start in time
        name = address or os.environ.get("RAY_ADDRESS") or "the one last started here"
        reason = str(error).split("\n")[0]
        if not joins:
            raise SetupError(f"Ray cannot be started on this machine: {reason}") from error
        raise SetupError(
            f"Ray cluster {name}: cannot be joined: {reason} (RAY_AUTH_MODE must be what it "
            "was for its nodes)"
        ) from error
    try:
        ray.get(_probe().remote(), timeout=START_TIMEOUT_S)
    except RayError as error:
        reason = str(error).strip().split("\n")[-1]
        raise SetupError(
            f"a Ray worker cannot import the package ({reason}); install it on every node, or use "
            "'ray job submit --working-dir .'"
        ) from error


def authentication_warning(version: str) -> str:
    """A warning before joining a cluster of this Ray version (the client's and all nodes'); empty
    if the authentication of the version was checked."""
    checked = ".".join(map(str, CHECKED_RAY))
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers >= CHECKED_RAY:
        return ""
    if numbers < AUTHENTICATED_RAY:
        return (
            f"Ray {version} has no authentication: whoever reaches its ports runs code there; "
            f"use Ray {checked} or later, or keep its network closed"
        )
    return f"authentication was checked with Ray {checked} and later only, this is {version}"


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """A Ray started meanwhile uses 127.0.0.1 as its node's address; its processes listen only
    there.

    ``ray.init`` replaces a loopback address that it is given; this is its switch for
    machines without clusters (``ray._private.services.get_node_ip_address``).
    """
    name, before = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    value_before = os.environ.get(name)
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        if value_before is None:
            del os.environ[name]
        else:
            os.environ[name] = value_before


def _find_home() -> None:
    """Ray writes to the home folder. A user without a writable one, as in a container, gets a
    private folder instead."""
    try:
        home = Path.home()
    except RuntimeError:  # a user whom the machine does not know
        home = None
    usable = home is not None and ((home / ".ray").exists() or os.access(home, os.W_OK))
    if not usable and (folder := private_folder("home")):
        os.environ["HOME"] = str(folder)


def _check_reachable(address: str) -> None:
    # Ray itself would try for minutes
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10.0).close()
    except (OSError, OverflowError) as error:
        raise SetupError(f"Ray cluster {address}: cannot be reached: {error}") from error


def _joins(address: str | None) -> bool:
    return (address or os.environ.get("RAY_ADDRESS", "local")) != "local"


def _probe() -> Any:
    def probe() -> str:  # local, so that it travels by value and starts where nothing is installed
        import autolabel.cluster.ray_cluster

        return str(autolabel.cluster.ray_cluster.__file__)

    return ray.remote(num_cpus=0, max_retries=0)(probe)


def worker_capacity(job: Job) -> int:
    """How many workers the cluster, as it is now, has room for."""
    resources = ray.cluster_resources()
    workers = int(resources.get("CPU", 0) // job.cpus_per_worker)
    if job.gpus_per_worker > 0:
        workers = min(workers, int(resources.get("GPU", 0) / job.gpus_per_worker + 1e-6))
    return workers
