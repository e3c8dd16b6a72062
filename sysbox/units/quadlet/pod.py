"""What a `.pod` file says, as the words of `sysbox pod create` and the keys of a service. Pure.

The service starts before the containers of the pod and stops after them.
"""

from __future__ import annotations

from sysbox.base.errors import FormatError
from sysbox.units.quadlet import container, remap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.conversion import Conversion


def convert(made: Conversion) -> None:
    """Add the words after `_pod %n`, and the keys of the service. Raises FormatError."""
    section, name = made.section, made.declared.resource_of(made.source.name)
    if made.source.is_template:
        raise FormatError(f"{section.path}: a pod cannot be a template")
    policy = section.one("ExitPolicy") or "stop"
    if policy not in ("stop", "continue"):
        raise section.wrong("ExitPolicy", f"{policy!r} is unknown", "stop or continue")
    timeout = section.one("StopTimeout")
    if timeout and not (timeout.isascii() and timeout.isdecimal()):
        raise section.wrong("StopTimeout", f"{timeout!r} is not a number of seconds")
    made.verb = "pod create"
    made.words += [f"--exit-policy={policy}", *section.flags()]
    remap.convert(made)
    container.volumes(made)
    container.networks(made)
    made.words += [*section.words("PodmanArgs"), name]
    _members(made)
    made.service += section.resources
    stop = ["pod", "stop", "--ignore", *([f"--time={timeout}"] if timeout else []), name]
    made.service += [
        ("Type", "oneshot"),
        ("RemainAfterExit", "yes"),
        ("SyslogIdentifier", "%N"),
        ("ExecStart", made.command("_pod", "%n", *made.words)),
        ("ExecStop", made.command(*stop)),
        ("ExecStopPost", made.command("pod", "rm", "--ignore", "--force", name)),
    ]


def _members(made: Conversion) -> None:
    """Name the containers of the pod in [Unit]."""
    for source in made.declared.members_of(made.source):
        unit = made.declared.service_of(source.name)
        made.unit.append(("Before", unit))
        if made.declared.section(source).is_true("StartWithPod", default=True):
            made.unit.append(("Wants", unit))
