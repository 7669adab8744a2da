"""Quality review of labels: viewer, pictures, reports."""
