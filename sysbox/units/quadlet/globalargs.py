"""GlobalArgs=, the flags before podman's verb: those that say where podman's state is cannot be honoured."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.values import Section

# flags about messages, and about what sysbox has one way for; whether a value follows as a word of its own
_HARMLESS = {
    "--log-level": True, "--events-backend": True, "--cgroup-manager": True, "--out": True, "--conmon": True,
    "--syslog": False, "--noout": False, "--trace": False, "--transient-store": False,
}  # fmt: skip


def check(section: Section) -> None:
    """Raises FormatError for a flag that would change what is done."""
    words = iter(section.words("GlobalArgs"))
    for word in words:
        flag, equals, value = word.partition("=")
        if flag not in _HARMLESS:
            raise section.wrong(
                "GlobalArgs",
                f"{flag} cannot be honoured: it is about podman's own files and programs",
                f"leave it out; without effect are {', '.join(sorted(_HARMLESS))}",
            )
        if _HARMLESS[flag] and not equals:
            value = next(words, "")
            if not value:
                raise section.wrong("GlobalArgs", f"{flag} has no value")
        if flag == "--cgroup-manager" and value != "systemd":
            raise section.wrong("GlobalArgs", f"{word}: systemd makes the cgroups of containers")
