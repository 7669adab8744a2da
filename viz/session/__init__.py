"""What is looked at: labels, log, truth, of one frame at a time."""
