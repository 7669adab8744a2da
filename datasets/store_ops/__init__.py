"""Work on whole stores: check, tidy, compare, merge, export."""

from datasets.store_ops.compare import Difference, diff
from datasets.store_ops.export import export
from datasets.store_ops.maintenance import StoreInfo, info, leftovers, prune, verify
from datasets.store_ops.merge import merge

__all__ = [
    "Difference",
    "StoreInfo",
    "diff",
    "export",
    "info",
    "leftovers",
    "merge",
    "prune",
    "verify",
]
