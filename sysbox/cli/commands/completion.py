"""`sysbox completion SHELL`: the script that makes a shell complete sysbox's command line."""

from __future__ import annotations

from sysbox.base.errors import UsageError
from sysbox.cli.output import emit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0. Raises UsageError for an unknown shell."""
    from click.shell_completion import get_completion_class

    from sysbox.cli.parse.cold import COMPLETE_VARIABLE, root

    kind = get_completion_class(values.shell)
    if kind is None:
        raise UsageError(f"no completion for '{values.shell}'", hint="bash, zsh or fish")
    script = kind(root(), {}, "sysbox", COMPLETE_VARIABLE)
    # not .source(), which runs the shell to check its version
    emit(script.source_template % script.source_vars())
    return 0
