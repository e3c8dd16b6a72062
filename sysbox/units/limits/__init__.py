"""Resource limits: as flags, as unit properties, and as the kernel's cgroup files have them."""
