"""Options of trainings, and training through Ray."""
