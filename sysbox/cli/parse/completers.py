"""Shell completion of arguments and of flags' values, chosen by their names in the option table."""

from __future__ import annotations

import os

from click.shell_completion import CompletionItem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click

    from sysbox.cli.table.options import Argument, Option, Verb

    Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def of_argument(verb: Verb, argument: Argument) -> Completer:
    """The completer for an argument of a verb."""
    special = _OF_VERBS.get(f"{verb.name} {argument.name}")
    return special or _ARGUMENTS.get(argument.name, _nothing)


def of_option(option: Option) -> Completer | None:
    """The completer for the value of a flag; None leaves it to click, which offers nothing."""
    if option.names[-1] == "--security-opt":
        return _listed(lambda: (*option.choices, *(f"seccomp={one}" for one in _profiles())))
    if option.names[-1] == "--filter" and option.metavar == "KEY=VALUE":
        return _listed(lambda: _keys(option))
    if option.choices:
        return _listed(lambda: option.choices)
    return _VALUES.get(option.metavar)


def _keys(option: Option) -> Iterable[str]:
    """The keys of a filter, as its help lists them."""
    return {f"{key}=" for key in option.help.partition(": ")[2].split(", ")}


def _items(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def _listed(names: Callable[[], Iterable[str]]) -> Completer:
    """A completer for the names that are not given yet; it offers none that the user may not read."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        given = ctx.params.get(param.name or "") if param.nargs == -1 else ()
        try:
            return _items(set(names()) - set(given or ()), incomplete)
        except (OSError, ValueError):
            return []

    return complete


def _host_directory() -> str:
    """The state directory of the host in SYSBOX_HOST=embedded:NAME; "" for the default, /var/lib/sysbox."""
    from sysbox.base.errors import SysboxError
    from sysbox.embedded import state

    try:
        name = state.name_from_environment()
    except SysboxError:
        return ""
    return "" if name == state.DEFAULT else state.sysbox_directory(name)


def _containers() -> Iterable[str]:
    if there := _host_directory():
        return os.listdir(f"{there}/names")
    from sysbox.container.names import taken_names

    return taken_names()


def _images() -> Iterable[str]:
    """Names of images as users type them: without `docker.io` and `latest`."""
    from sysbox.image.reference import parse
    from sysbox.image.store import Store

    there = _host_directory()
    store = Store(f"{there}/images") if there else Store()
    names = {name for image in store.list() for name in image.names}
    return {parse(name).familiar().removesuffix(":latest") for name in names} | {"host"}


def _objects() -> Iterable[str]:
    return {*_containers(), *_images()}


def _volumes() -> Iterable[str]:
    if there := _host_directory():
        found = os.listdir(f"{there}/volumes") if os.path.isdir(f"{there}/volumes") else []
        return [one for one in found if one[0] != "."]  # the lock is beside them
    from sysbox.fs import volumes

    return volumes.names()


def _networks() -> Iterable[str]:
    """Those that are defined, and those that always are there."""
    from sysbox.netns import networks
    from sysbox.netns.network import BUILTIN

    if there := _host_directory():
        found = os.listdir(f"{there}/networks") if os.path.isdir(f"{there}/networks") else []
        return {one.removesuffix(".json") for one in found if one.endswith(".json")} | {*BUILTIN}
    return {*networks.defined(), *BUILTIN}


def _secrets() -> Iterable[str]:
    if there := _host_directory():
        found = os.listdir(f"{there}/secrets") if os.path.isdir(f"{there}/secrets") else []
        return {one.removesuffix(".json") for one in found if one.endswith(".json")}
    from sysbox.container import secrets

    return secrets.defined()


def _pods() -> Iterable[str]:
    there = _host_directory()
    if there and not os.path.isdir(f"{there}/pods"):
        return ()
    if there:
        return [one for one in os.listdir(f"{there}/pods") if one[0] != "."]
    from sysbox.container import pods

    return pods.known()


def _units() -> Iterable[str]:
    """Those that `unit install` has written; on an embedded host they are in its own /etc."""
    if _host_directory():
        return ()
    from sysbox.lifecycle import unit

    return {one.unit for one in unit.installed()}


def _registries() -> Iterable[str]:
    """Registries that have credentials."""
    from sysbox.image.registry import credentials

    found = [credentials.auths(credentials.load(path), path) for path in credentials.paths()]
    return {credentials.normal(key) for entries in found for key in entries}


def _limits() -> Iterable[str]:
    from sysbox.units.limits.table import TABLE

    return {one.flag.removeprefix("--") for one in TABLE}


def _signals() -> Iterable[str]:
    import signal

    return {one.name.removeprefix("SIG") for one in signal.Signals}


def _capabilities() -> Iterable[str]:
    from sysbox.linux.capability import NAMES, last_cap

    return {*NAMES[: last_cap() + 1], "ALL"}


def _profiles() -> Iterable[str]:
    """Seccomp profiles."""
    from sysbox.parse import seccomp

    return seccomp.names()


def _variants() -> Iterable[str]:
    from sysbox.image.bootstrap import VARIANTS

    return VARIANTS


def _files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    del ctx, param
    return [CompletionItem(incomplete, type="file")]


def _containers_or_files(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    of_containers = _listed(lambda: {f"{name}:" for name in _containers()})
    return [*of_containers(ctx, param, incomplete), *_files(ctx, param, incomplete)]


def _volumes_or_files(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    return [*_listed(_volumes)(ctx, param, incomplete), *_files(ctx, param, incomplete)]


def _verbs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What may follow the words that are given already: `network` is followed by that group's verbs."""
    from sysbox.cli.table.verbs import GROUPS, VERBS

    before = "".join(f"{word} " for word in ctx.params.get(param.name or "") or ())
    below = [name.removeprefix(before) for name in (*VERBS, *GROUPS) if name.startswith(before)]
    return _items({name.partition(" ")[0] for name in below}, incomplete)


def _nothing(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    del ctx, param, incomplete
    return []


_ARGUMENTS: dict[str, Completer] = {
    "CONTAINER": _listed(_containers),
    "IMAGE": _listed(_images),
    "NAME": _listed(_images),
    "SHELL": _listed(lambda: ("bash", "fish", "zsh")),
    "FILE": _files,
    "SOURCE": _containers_or_files,
    "DESTINATION": _containers_or_files,
    "VOLUME": _listed(_volumes),
    "NETWORK": _listed(_networks),
    "POD": _listed(_pods),
    "UNIT": _listed(_units),
    "LIMIT": _listed(_limits),
    "SECRET": _listed(_secrets),
    "REGISTRY": _listed(_registries),
}

# verbs for which an argument's name means something else
_OF_VERBS: dict[str, Completer] = {
    "inspect NAME": _listed(_objects),
    "help WORD": _verbs,
    "rename NAME": _nothing,
    "tag NAME": _nothing,
    "bootstrap NAME": _listed(lambda: ("debian:bookworm", "debian:trixie", "ubuntu:noble")),
    "volume create VOLUME": _nothing,
    "network create NETWORK": _nothing,
    "secret create SECRET": _nothing,
}

# by the metavar of the flag
_VALUES: dict[str, Completer] = {
    "FILE": _files,
    "SIGNAL": _listed(_signals),
    "CAPABILITY": _listed(_capabilities),
    "VARIANT": _listed(_variants),
    "HOST[:CONTAINER[:rwm]]": _files,
    "NETWORK[:OPTION=VALUE,...]": _listed(_networks),
    "POD": _listed(_pods),
    "[SOURCE:]TARGET[:OPTIONS]": _volumes_or_files,
    "SECRET[,KEY=VALUE...]": _listed(_secrets),
}
