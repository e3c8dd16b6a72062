"""The checks of `sysbox doctor`."""
