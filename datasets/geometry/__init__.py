"""Grids, rigid transforms and voxel traversal."""
