"""The labelling job: a teacher over unlabelled scenes into a label store."""
