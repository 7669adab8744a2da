"""Digests in JSON documents, which detect changed bytes.

A digest stands in the document, under ``digest``, and covers all else in it. Documents that older
code wrote have none: nothing tells then whether they were altered.
"""

from __future__ import annotations

import hashlib
from typing import Any

from datasets.files.json_files import json_text

DIGEST = "digest"


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its digest."""
    return {**document, DIGEST: digest_of(document)}


def fault_of_seal(document: dict[str, Any], *, wanted: bool) -> str:
    """What is wrong with a document's digest; empty if nothing is.

    Args:
        wanted: it must have one.
    """
    if DIGEST not in document:
        return "its digest is missing" if wanted else ""
    return "" if digest_of(document) == document[DIGEST] else "it was altered: its digest differs"


def digest_of(document: dict[str, Any]) -> str:
    """sha256 of a document's canonical JSON, its own digest left out."""
    content = {key: value for key, value in document.items() if key != DIGEST}
    return hashlib.sha256(json_text(content, sort_keys=True).encode()).hexdigest()
