"""The options of each command; nothing here is slow to import."""
