"""Which labels are wrong, and why, without ground truth."""

from autolabel.auditing.audit import audit_labels, gather

__all__ = [
    "audit_labels",
    "gather",
]
