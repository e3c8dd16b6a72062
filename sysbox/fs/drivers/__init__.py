"""Where layers live: one file per storage driver."""
