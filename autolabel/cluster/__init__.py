"""The labeling job over many scenes: driver, Ray workers, events and summary."""

from autolabel.cluster.driver import run_job
from autolabel.cluster.ray_cluster import connect
from autolabel.cluster.summary import JobSummary, Progress
from autolabel.cluster.worker import Job

__all__ = [
    "Job",
    "JobSummary",
    "Progress",
    "connect",
    "run_job",
]
