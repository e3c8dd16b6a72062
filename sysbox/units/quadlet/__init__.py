"""Containers, volumes, networks, images, pods and builds that are declared in unit files."""
