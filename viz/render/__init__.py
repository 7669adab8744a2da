"""Voxels, points and images, drawn."""
