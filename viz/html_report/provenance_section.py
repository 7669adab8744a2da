"""The section on where labels come from: weights, configuration, software, licence."""

from __future__ import annotations

from typing import Any

from datasets.files.json_files import json_text
from datasets.store_ops.export import sharing
from viz.html_report.content import Content
from viz.html_report.markup import Html, join, tag
from viz.html_report.page import Column, Section, many, table, words

APART = ("config", "software", "calibration")
"""Parts of the provenance with tables of their own, or shown elsewhere."""


def provenance(content: Content) -> Section:
    """All that determined the labels."""
    header = content.numbers.header
    grid, provenance = header.grid, header.provenance
    shape, size = (" x ".join(f"{v:g}" for v in values) for values in (grid.shape, grid.size_m))
    facts: dict[str, Any] = {
        "store": content.where,
        "run id": header.run_id,
        "inputs": content.inputs_sha256 or "not known",
        "voxels": f"{shape} of {size} m, in the {header.frame} frame",
        "from": ", ".join(f"{v:g}" for v in grid.min_m) + " m",
        "classes": header.taxonomy.name,
        "size": many(content.n_bytes, "B") if content.n_bytes else "not known",
        **{key: value for key, value in provenance.items() if key not in APART},
    }
    config, software = (_flat(provenance.get(key)) for key in ("config", "software"))
    two = [tag("div", tag("h3", "Software"), _facts(software, "Software"))] if software else []
    if config:
        two.insert(0, tag("div", tag("h3", "Configuration"), _facts(config, "Configuration")))
    parts = [
        tag("p", tag("strong", sharing(header.licence)[:1].upper() + sharing(header.licence)[1:])),
        _facts(facts, "Provenance"),
    ]
    if two:
        parts.append(tag("div", *two, class_="two"))
    return Section(
        id="provenance",
        title="Provenance",
        lead="What determined the labels. The same run id means the same labels.",
        body=join(parts),
    )


def _facts(facts: dict[str, Any], caption: str) -> Html:
    heads = [Column(name="What", text=True), Column(name="Value", text=True)]
    rows = [
        [words(name.replace("_", " ")), tag("td", _shown(value), class_="words code")]
        for name, value in facts.items()
    ]
    return table(heads, rows, caption)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested JSON as dotted names; long lists stay lists."""
    if not isinstance(value, dict):
        return {prefix: value} if prefix else {}
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    return flat


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value)
