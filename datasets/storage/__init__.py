"""Folders and object stores, behind one interface."""

from datasets.storage.backend import Place, Where, as_place, parse_where
from datasets.storage.remote_path import remote_or_local

__all__ = [
    "Place",
    "Where",
    "as_place",
    "parse_where",
    "remote_or_local",
]
