"""Security defaults: the choices are pure, the kernel calls are in `linux/`."""
