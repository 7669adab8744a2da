"""The simulated city: a procedural street world, written as a real nuScenes root."""

PROFILES = ("tiny", "full")
"""Sizes of images and scenes that ``datasets.sources.synthetic.city`` knows."""
