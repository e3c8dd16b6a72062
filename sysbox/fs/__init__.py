"""A container's root file system: planned as operations, applied through a root descriptor."""
