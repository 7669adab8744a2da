"""Temporal fusion of the frames of a drive."""
