"""Work on whole stores: check, tidy, compare, merge, export."""

from datasets.store_ops.compare import StoreDifference, diff
from datasets.store_ops.export import export
from datasets.store_ops.maintenance import StoreInfo, info, leftovers, prune, verify
from datasets.store_ops.merge import merge

__all__ = [
    "StoreDifference",
    "StoreInfo",
    "diff",
    "export",
    "info",
    "leftovers",
    "merge",
    "prune",
    "verify",
]
