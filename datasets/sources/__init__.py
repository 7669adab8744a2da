"""Readers of logs."""

SOURCES = ("city", "nuscenes", "waymo", "folder")
"""Kinds of log that ``datasets.sources.opening`` opens."""
