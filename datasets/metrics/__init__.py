"""Streaming, mergeable scores."""
