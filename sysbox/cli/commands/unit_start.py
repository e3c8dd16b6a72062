"""`_unit SERVICE WORD...`, ExecStart= of a declared container, and `_unit SERVICE`, its ExecStopPost=;
`_pod SERVICE WORD...`, ExecStart= of a declared pod.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import ImageNotFound, UsageError
from sysbox.cli import notices
from sysbox.cli.parse import hot
from sysbox.cli.request.spec import build
from sysbox.cli.table.verbs import VERBS
from sysbox.host import exists
from sysbox.lifecycle import declared

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.cli.unit_pull import UnitPull


def main(words: list[str]) -> int:
    """The start, which becomes the monitor; without words, what is left to do after the end."""
    given = words[0] if words and words[0].startswith("--notify=") else ""
    words = words[bool(given) :]
    if not words or not words[0].endswith(".service"):
        raise UsageError("_unit: the name of a service must be given")
    unit, rest = words[0], words[1:]
    if posix.geteuid():
        raise UsageError(
            f"{unit}: a container is made by root",
            hint="without User= in [Service]; the user inside is User= in [Container]",
        )
    if not rest:
        return declared.end(unit)
    try:
        values = hot.parse(VERBS["run"], rest)
    except hot.Fallback:
        words_shown = " ".join(rest)
        raise UsageError(
            f"{unit}: `sysbox run` does not accept {words_shown}",
            hint="`sysbox unit check` says why",
        ) from None
    if values.unit_file is not None:
        raise UsageError(f"{unit}: --unit-file writes a declaration, and is no flag of one")
    spec = build(values, detach=True).replace(ready=given.partition("=")[2])
    asks = spec.pull in ("always", "newer") or values.platform
    if asks and not exists(declared.held(unit)):
        spec = _pulls(unit, values).refresh(spec)
    try:
        return declared.start(unit, spec, notices.Notices())
    except ImageNotFound as error:
        missing = error
    spec = _pulls(unit, values).missing(spec, missing)
    return declared.start(unit, spec, notices.Notices())


def _pulls(unit: str, values: Values) -> UnitPull:
    from sysbox.cli.unit_pull import UnitPull  # most starts pull nothing

    return UnitPull(unit, values)


def pod(words: list[str]) -> int:
    """Make the pod of a service anew, and bring it up. Raises SysboxError; nothing is left then."""
    from sysbox.cli.request import pod as request

    if not words or not words[0].endswith(".service"):
        raise UsageError("_pod: the name of a service must be given")
    try:
        values = hot.parse(VERBS["pod create"], words[1:])
    except hot.Fallback:
        raise UsageError(
            f"{words[0]}: `sysbox pod create` does not accept {' '.join(words[1:])}",
            hint="`sysbox unit check` says why",
        ) from None
    declared.start_pod(words[0], request.build(values))
    return 0
