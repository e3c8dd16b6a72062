"""`sysbox pull`: fetch images from registries."""

from __future__ import annotations

from sysbox.base.errors import SpecError, SysboxError, UsageError
from sysbox.cli import pulling
from sysbox.cli.output import line, report
from sysbox.embedded import caller_root
from sysbox.image.reference import has_suffix, parse
from sysbox.image.registry import conf
from sysbox.image.registry.pull import Options, all_tags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.image.reference import Reference


def main(values: Values) -> int:
    """0 if all were pulled, else 1; prints the id of each."""
    options = Options(
        platform=values.platform or "",
        authfile=values.authfile or "",
        insecure=not values.tls_verify,
    )
    status = 0
    for name in values.image:
        try:
            for wanted in _wanted(name, options, everything=values.all_tags):
                line(pulling.shown(wanted, options, quiet=values.quiet).image.id)
        except SysboxError as error:
            report(error)
            status = 1
    return status


def _wanted(name: str, options: Options, *, everything: bool) -> list[str] | list[Reference]:
    if not everything:
        return [name]
    if has_suffix(name):
        raise UsageError(
            f"pull --all-tags {name}: a tag or digest is given", hint="give the repository alone"
        )
    candidates = conf.candidates(name)
    if len(candidates) > 1:
        raise SpecError(
            f"pull --all-tags {name}: may be on several registries",
            hint=f"give the registry too, as in {candidates[0].familiar_repository()}",
        )
    with caller_root.Network():
        return all_tags(parse(candidates[0].repository()), options)
