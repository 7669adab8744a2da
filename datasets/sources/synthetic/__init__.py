"""The built-in city: a procedural street world, simulated and written as a real nuScenes root."""
