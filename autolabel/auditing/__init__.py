"""Which labels are wrong, and why, without ground truth."""

from autolabel.auditing.audit import audit_report, audit_scenes

__all__ = [
    "audit_report",
    "audit_scenes",
]
