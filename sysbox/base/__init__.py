"""What knows nothing of containers."""
