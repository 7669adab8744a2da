"""Operators with more than one implementation."""
