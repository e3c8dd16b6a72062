"""Helpers that know nothing of containers."""
