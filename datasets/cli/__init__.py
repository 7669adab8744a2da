"""What all commands share: exit codes, signals."""
