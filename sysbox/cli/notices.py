"""Messages of `run`, `start` and `attach` on standard error while a container runs."""

from __future__ import annotations

from sysbox.cli.output import note, one_line
from sysbox.lifecycle import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record
    from sysbox.spec import ContainerSpec


def of_profile(spec: ContainerSpec, *, starts: bool = True) -> None:
    """Say which system calls its seccomp profile names for nothing; nothing is made if it cannot be read,
    or cannot be written. `starts`: the container is not only made, but is to run now.

    Raises SpecError, FormatError, Unsupported, Conflict.
    """
    if spec.security.recorded:
        from sysbox.run import recording

        checked = recording.check_free if starts else recording.check
        checked(spec.security.recorded)
    elif spec.security.seccomp not in ("default", "unconfined"):
        from sysbox.security import seccomp

        if said := seccomp.unknown_calls(spec.security):
            note(one_line(said))


class Notices(run.Notices):
    """Prints each message."""

    def killing(self) -> None:
        note("ctrl-c three times: killing the container")

    def detached(self, record: Record) -> None:
        # a terminal may be in the middle of a line
        start = "\n" if record.spec.tty else ""
        note(f"detached; `sysbox attach {record.name}` attaches again", start)

    def replaced_by_none(self, name: str) -> None:
        note(one_line(f"--replace: the container {name} is removed, and there is no new one"))

    def without_user_namespace(self, reason: str) -> None:
        note(f"no user namespace of its own, as with --userns host: {reason}")

    def with_less_landlock(self, reach: tuple[str, ...]) -> None:
        note(f"landlock=on: this kernel's Landlock cannot restrict {', '.join(reach)}")
