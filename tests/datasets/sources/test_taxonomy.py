"""The class lists hang together."""

from __future__ import annotations

import pytest

from datasets.taxonomy import (
    OCC3D_NUSCENES,
    OCC3D_WAYMO,
    OPENOCC_FLOW,
    OPENOCCUPANCY,
    SEMANTIC_KITTI,
    SURROUNDOCC,
    Taxonomy,
)


@pytest.mark.parametrize(
    ("taxonomy", "classes"),
    [
        (OCC3D_NUSCENES, 18),
        (OPENOCCUPANCY, 17),
        (OPENOCC_FLOW, 17),
        (OCC3D_WAYMO, 16),
        (SURROUNDOCC, 17),
        (SEMANTIC_KITTI, 20),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_class_list_is_whole_and_survives_json(taxonomy: Taxonomy, classes: int) -> None:
    assert taxonomy.n_classes == classes == len(set(taxonomy.colors))
    assert taxonomy.names[taxonomy.free_id] == "free"
    assert set(taxonomy.dynamic) <= set(taxonomy.foreground)
    assert Taxonomy.from_json(taxonomy.to_json()) == taxonomy


def test_lists_of_nuscenes_differ_in_order_only() -> None:
    named = set(OCC3D_NUSCENES.names) - {"others"}
    assert set(OPENOCCUPANCY.names) == set(OPENOCC_FLOW.names) == named
    assert OPENOCCUPANCY.names[1:] == OCC3D_NUSCENES.names[1:17]  # both follow nuScenes-lidarseg
    assert SURROUNDOCC.names == OPENOCCUPANCY.names
