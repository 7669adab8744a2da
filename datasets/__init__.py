"""What is known about the world: frames in, labels in and out."""
