"""One run, from the fork to its end."""
