"""Checks of a log before it is labelled: structure, cameras, annotations, and a whole scene."""
