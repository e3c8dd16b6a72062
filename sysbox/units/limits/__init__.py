"""Resource limits: as asked, as unit properties, and as the kernel has them."""
