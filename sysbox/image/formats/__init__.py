"""The forms in which images are exchanged as files: docker's archive, OCI layouts, docker's directory."""
