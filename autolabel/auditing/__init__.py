"""Which labels are wrong, and why, without ground truth."""

from autolabel.auditing.audit import audit_labels, gather
from autolabel.auditing.report import AuditReport

__all__ = [
    "AuditReport",
    "audit_labels",
    "gather",
]
