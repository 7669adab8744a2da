"""The labeling job: a teacher over unlabeled scenes into a label store."""
