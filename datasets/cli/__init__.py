"""What all commands share: options, start, signals, exit codes. Nothing here is slow to import."""
