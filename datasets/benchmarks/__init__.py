"""Label formats of the public benchmarks: grid, taxonomy, reader and writer."""

NAMES = (
    "occ3d_nuscenes",
    "occ3d_waymo",
    "openoccupancy",
    "openocc_flow",
    "surroundocc",
    "occ3d_coarse",
    "semantic_kitti",
)
"""Of ``datasets.benchmarks.catalogue``, whose readers are slow to import."""
WRITABLE = tuple(name for name in NAMES if name != "occ3d_coarse")
"""Formats that a store can be exported to."""
