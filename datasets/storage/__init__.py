"""Storage backends: local folders and object stores."""

from datasets.files.store_path import StorePath, parse_store_path
from datasets.storage.backend import StorageBackend, as_backend
from datasets.storage.remote_path import remote_or_local

__all__ = [
    "StorageBackend",
    "StorePath",
    "as_backend",
    "parse_store_path",
    "remote_or_local",
]
