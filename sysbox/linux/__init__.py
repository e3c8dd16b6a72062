"""Kernel interfaces, one per file, over the C extension `_sys`: the lowest layer of sysbox."""
