"""Judging frames and editing voxels, without a window."""
