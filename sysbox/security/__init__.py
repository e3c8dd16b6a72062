"""Security defaults and profiles: pure decisions; the kernel calls are in `linux/`."""
