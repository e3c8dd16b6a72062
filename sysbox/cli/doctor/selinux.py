"""The check of SELinux's labels on disk: a store that was made while SELinux was off has none.

A container's processes see the label of a mount, but where they map a program the kernel asks for that of the
file below too: without one the program's libraries cannot be loaded.
"""

from __future__ import annotations

import posix

from sysbox.base import paths
from sysbox.base.errors import SysboxError
from sysbox.cli.doctor.check import Check, useful
from sysbox.fs import policy_contexts
from sysbox.linux import lsm, process
from sysbox.security.labels import type_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts

_PROGRAM = "matchpathcon"  # of the package with restorecon(8)'s library, on every distribution
_NONE = "<<none>>"  # what it prints for a file whose label the policy leaves alone
_LAYERS = f"{paths.IMAGES}/layers"
_MOST = 3  # layers that are looked at, and names in each


def stored(facts: HostFacts) -> list[Check]:
    """Whether what sysbox keeps has the labels that the policy's file contexts want; [] without SELinux."""
    if not facts.selinux:
        return []
    problem, advice = _wrong(_samples())
    return [useful("security", "SELinux labels", problem, paths.STATE, advice)]


def _samples() -> list[str]:
    """Some of the paths that every container depends on; those that do not exist, too."""
    found = [paths.STATE, paths.IMAGES, _LAYERS]
    for layer in _entries(_LAYERS):
        found += [layer, *_entries(layer)]
    return found


def _entries(directory: str) -> list[str]:
    """The first paths in a directory; [] where it cannot be read. One with a newline is left out."""
    try:
        names = sorted(posix.listdir(directory))
    except OSError:
        return []
    return [f"{directory}/{name}" for name in names if "\n" not in name][:_MOST]


def _wrong(samples: list[str]) -> tuple[str, str]:
    """(what has another label than the policy wants, what to do); ("", "") if nothing has."""
    try:
        status, output = process.spawn([_PROGRAM, "-n", *samples])
    except SysboxError:
        return f"{_PROGRAM} is not installed: it tells the labels", "install SELinux's utilities"
    wanted = dict(zip(samples, output.decode("utf-8", "replace").splitlines(), strict=False))
    if status or len(wanted) != len(samples):
        return f"{_PROGRAM} failed with status {status}", ""
    if _type_in(wanted[_LAYERS]) != type_of(policy_contexts.read().ro_file):
        return "the policy does not know sysbox's files", "make install-selinux"
    bad = []
    for path, label in wanted.items():
        has = lsm.file_label(path)
        if has and label != _NONE and _type_in(has) != _type_in(label):
            bad.append(f"{path} is {_type_in(has)}, not {_type_in(label)}")
    more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
    return (f"{bad[0]}{more}", f"restorecon -R {paths.STATE}") if bad else ("", "")


def _type_in(label: str) -> str:
    """The type of what should be a label; itself where it is none."""
    return type_of(label) if label.count(":") >= 2 else label
