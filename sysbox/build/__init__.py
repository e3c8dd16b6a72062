"""Containerfiles: what they say, which of it a target needs, and how it is made."""
