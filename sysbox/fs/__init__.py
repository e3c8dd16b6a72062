"""The root file system: planned as operations, applied through a root fd."""
