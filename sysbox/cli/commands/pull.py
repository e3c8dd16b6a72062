"""`sysbox pull`: fetch images from registries."""

from __future__ import annotations

from sysbox.base.errors import SpecError, SysboxError, UsageError
from sysbox.cli import pulling
from sysbox.cli.output import line, report
from sysbox.cli.request.registries import transfer
from sysbox.embedded import caller_root
from sysbox.image.reference import has_suffix, parse
from sysbox.image.registry import conf, platform
from sysbox.image.registry.pull import Options, all_tags
from sysbox.image.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.image.reference import Reference


def main(values: Values) -> int:
    """0 if all were pulled, else 1; prints the id of each."""
    status = 0
    options, policy = asked(values)
    for name in [one.removeprefix("docker://") for one in values.image]:
        try:
            if policy != "always" and (kept := _kept(name, policy, options)):
                line(kept)
                continue
            for wanted in _wanted(name, options, everything=values.all_tags):
                line(pulling.shown(wanted, options, quiet=values.quiet).image.id)
        except SysboxError as error:
            report(error)
            status = 1
    return status


def asked(values: Values) -> tuple[Options, str]:
    """What the flags ask for, and --policy. Raises SpecError, UsageError."""
    return Options(platform=_platform(values), **transfer(values)), _policy(values)


def _platform(values: Values) -> str:
    """--platform, or the same in podman's three flags. Raises UsageError."""
    parts = (values.os, values.arch, values.variant)
    if not any(parts):
        return values.platform or ""
    if values.platform:
        raise UsageError("pull: --platform and --os, --arch, --variant are mutually exclusive")
    own = platform.own()
    architecture = values.arch or own.architecture
    found = (values.os or own.os, architecture, values.variant)
    return "/".join(filter(None, found))


def _policy(values: Values) -> str:
    policy = values.policy or "always"
    if policy not in ("always", "missing", "newer", "never"):
        raise UsageError(
            f"--policy {policy}: unknown policy", hint="always, missing, newer or never"
        )
    if policy != "always" and values.all_tags:
        raise UsageError(f"pull: --policy {policy} and --all-tags are mutually exclusive")
    return str(policy)


def _kept(name: str, policy: str, options: Options) -> str:
    """The id of the image that is here, where the policy is content with it; "" where it is to be pulled."""
    if policy == "never":
        return Store().resolve(name).id
    found = pulling.here(name)
    if found is None or (options.platform and not platform.fits(found.config, options.platform)):
        return ""
    if policy == "newer" and not pulling.up_to_date(name, options):
        return ""
    return found.id


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
