"""What the other frames of a drive say about each."""
