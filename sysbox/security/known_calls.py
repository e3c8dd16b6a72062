"""Which system calls a profile names that nobody here knows: misspelt ones, or newer ones.

Profiles are made for newer kernels too, so such a name is no error: it has no effect, and a line says so.
"""

from __future__ import annotations

from sysbox.base.suggest import nearest
from sysbox.security import bpf, profile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.security.profile import Profile

_NUMBERS = 1024  # more than any architecture's numbers reach
_SAID = 5  # names that are said
_MOST = 64  # names that are compared with all that are known
_LONGEST = 64  # characters of a name that are said


def describe_unknown(wanted: Profile) -> str:
    """One line about the names that are not known; "" if there are none. Raises Unsupported."""
    library = bpf.library()
    ours = {name for rule in profile.default().rules for name in rule.names}
    names = dict.fromkeys(name for rule in wanted.rules for name in rule.names)
    unknown = [name for name in names if name not in ours and not bpf.knows(library, name)]
    if not unknown:
        return ""
    known = sorted(ours | names_of(library))
    near = {name: nearest(name, known) for name in unknown[:_MOST]}
    # what looks like a mistake comes first
    ordered = sorted(unknown, key=lambda name: (not near.get(name), name))
    said = [
        f"{name[:_LONGEST]} (did you mean {near[name]}?)" if near.get(name) else name[:_LONGEST]
        for name in ordered[:_SAID]
    ]
    if rest := len(ordered) - len(said):
        said.append(f"{rest} more")
    return f"ignoring unknown system calls: {', '.join(said)}"


def names_of(library: Any) -> set[str]:
    """All that libseccomp knows of this machine's architecture."""
    found = set()
    for number in range(_NUMBERS):
        try:
            found.add(library.resolve_syscall(library.Arch.NATIVE, number).decode())
        except ValueError:
            continue
    return found
