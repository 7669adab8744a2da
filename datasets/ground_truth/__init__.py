"""Occupancy from annotated LiDAR."""
