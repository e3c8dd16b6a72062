"""Which images this machine accepts: policy.json, signatures, and where each image came from."""
