"""The layers and networks."""
