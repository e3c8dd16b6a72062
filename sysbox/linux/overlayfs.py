"""overlayfs: its options and marks that depend on who mounts it. Documentation/filesystems/overlayfs.rst."""

from __future__ import annotations

from sysbox.linux import userns


def options() -> str:
    """The options without which a layer would not have complete files at their own paths, as in an image.

    Whatever the kernel's defaults are. Attributes named trusted.* are for the host's root alone, so in a user
    namespace the marks are user.*, which turns redirects and metacopies off too ("User xattr").
    """
    return "redirect_dir=off,metacopy=off" if userns.is_initial() else "userxattr"


def opaque_attribute() -> str:
    """The attribute that is "y" on a directory which hides its content in the layers below."""
    return f"{'trusted' if userns.is_initial() else 'user'}.overlay.opaque"
