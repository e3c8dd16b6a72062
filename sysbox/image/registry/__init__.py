"""Registries: OCI distribution 1.1 and docker's registry API v2, their configuration and credentials."""
