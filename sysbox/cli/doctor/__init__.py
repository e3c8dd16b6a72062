"""What `sysbox doctor` looks at."""
