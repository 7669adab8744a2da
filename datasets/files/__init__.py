"""Writing and reading files so that nothing is torn, lost or without bounds."""
