"""Quality review of labels: viewer, images, reports."""
