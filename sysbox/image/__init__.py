"""Images: a content store in the OCI layout and what fills it."""
