"""The occupancy networks, in plain PyTorch."""
