"""Archives made byte by byte, the good and the hostile: `tarfile` would refuse to write most of these."""
