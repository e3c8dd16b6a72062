"""From the flags of `build` to what is asked of a build: parses every text."""

from __future__ import annotations

import os

from sysbox.base.errors import SpecError, UsageError
from sysbox.build.model import Request
from sysbox.build.options import Options
from sysbox.build.run_mounts import Given
from sysbox.cli.request import limits, networks
from sysbox.cli.request.registries import transfer
from sysbox.cli.request.secret_value import of_file, of_variable
from sysbox.conf import settings
from sysbox.image.registry import platform
from sysbox.lifecycle.build import Asked, names_of, own_platform
from sysbox.parse import common as parse
from sysbox.parse.bandwidth import parse_bandwidth
from sysbox.parse.network import parse_add_host
from sysbox.parse.process import parse_groups, parse_label
from sysbox.parse.security import parse_cap, parse_security_opts, parse_ulimit
from sysbox.parse.storage import parse_mount_v
from sysbox.spec import ContainerSpec, Endpoint, Mount, Namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.conf.values import Settings

_EPOCH = "SOURCE_DATE_EPOCH"
_IMAGE = "docker-image://"  # of --build-context
_LAYOUT = "oci-layout://"
_RIGHTS = ("network.host", "security.insecure")


def asked(given: Values, *, image: bool, names: tuple[str, ...] = ()) -> Asked:
    """The build that a command line asks for; `names` are the image's besides --tag.

    Raises SpecError, UsageError.
    """
    _check_habits(given)
    arguments = dict(_argument(text) for text in given.build_arg)
    named = dict(_pair(text, "--build-context") for text in given.build_context)
    contexts = {name: text for name, text in named.items() if not text.startswith(_IMAGE)}
    wanted = str(platform.parse(given.platform)) if given.platform else ""
    return Asked(
        context=given.context or ".",
        file=given.file or "",
        ignore_file=given.ignorefile or "",
        contexts=contexts,
        request=Request(
            target=given.target or "",
            arguments=arguments,
            platform=wanted,
            own_platform=own_platform(),
            contexts=tuple(contexts),
            images={
                name: text.removeprefix(_IMAGE)
                for name, text in named.items()
                if name not in contexts
            },
            env=tuple(_variable(text) for text in given.env),
        ),
        options=_options(given, names, _epoch(arguments)),
        pull=_pull(given.pull),
        access=transfer(given),
        image=image,
    )


def _options(given: Values, names: tuple[str, ...], epoch: int) -> Options:
    chosen = settings.settings()
    return Options(
        cache=not given.no_cache,
        keep_failed=given.keep_failed,
        epoch=epoch,
        allowed=tuple(_right(text) for text in given.allow),
        context_files=chosen.context_files,
        fetch_size=chosen.fetch_size,
        template=_template(given, chosen),
        names=names_of((*given.tag, *names)),
        labels=tuple(parse_label(text, "--label") for text in given.label),
        annotations=tuple(_pair(text, "--annotation") for text in given.annotation),
        format=_format(given.format),
        squash=given.squash,
    )


def _check_habits(given: Values) -> None:
    """Refuse what buildx takes in these flags and sysbox does not. Raises SpecError, UsageError."""
    if "," in (given.platform or ""):
        raise SpecError(
            f"--platform {given.platform}: one platform at a time",
            hint="build for each under a name of its own; no index of several is made",
        )
    for flag, text in (("--provenance", given.provenance), ("--sbom", given.sbom)):
        if text not in (None, "false"):
            raise SpecError(
                f"{flag} {text}: no attestations are made", hint=f"leave it out, or {flag}=false"
            )
    for text in given.build_context:
        if text.partition("=")[2].startswith(_LAYOUT):
            raise SpecError(
                f"--build-context {text}: {_LAYOUT} is not read",
                hint=f"`sysbox load -i DIRECTORY`, then {_IMAGE}NAME",
            )


def _argument(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f"--build-arg {text}: not NAME=VALUE")
    return name, value if equals else os.environ.get(name)


def _pair(text: str, flag: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"{flag} {text}: not NAME=VALUE")
    return name, value


def _variable(text: str) -> tuple[str, str]:
    """NAME=VALUE of --env. Raises UsageError."""
    name, value = _pair(text, "--env")
    if "$" in value:
        raise UsageError(
            f"--env {text}: a $ is not supported", hint="ENV in the Containerfile has it"
        )
    return name, value


def _mount(text: str) -> Mount:
    """A bind mount of --volume, for each RUN. Raises SpecError."""
    found = parse_mount_v(text, "--volume")
    if found.kind != "bind":
        parse.bad("--volume", text, "not a directory of the host", "HOST:PATH[:OPTIONS]")
    return found.replace(create=False)


def _epoch(arguments: dict[str, str | None]) -> int:
    text = arguments.get(_EPOCH) or os.environ.get(_EPOCH, "")
    return parse.parse_int(text, _EPOCH, 0, 1 << 40) if text else -1


def _right(text: str) -> str:
    if text not in _RIGHTS:
        raise UsageError(f"--allow {text}: unknown right", hint=", ".join(_RIGHTS))
    return text


def _format(text: str | None) -> str:
    if text not in (None, "oci", "docker"):
        raise UsageError(f"--format {text}: unknown form", hint="oci or docker")
    return text or "oci"


def _pull(text: str | None) -> str:
    policies = {None: "missing", "true": "always", "false": "missing", "": "always"}
    found = policies.get(text, text or "")
    if found not in ("missing", "always", "newer", "never"):
        raise UsageError(f"--pull {text}: unknown policy", hint="missing, always, newer or never")
    return found


def _groups(texts: list[str]) -> tuple[str, ...]:
    groups, kept = parse_groups(texts, "--group-add")
    if kept is not None:
        parse.bad("--group-add", texts[0], "the image would depend on who builds it")
    return groups


def _template(given: Values, chosen: Settings) -> ContainerSpec:
    """What the container of each RUN has."""
    network = given.network or "default"
    mode = network if network in ("none", "host") else "bridge"
    named = () if network in ("default", "bridge", "none", "host") else (Endpoint(network=network),)
    if given.userns not in (None, "", "auto", "host"):
        raise UsageError(f"--userns {given.userns}: must be auto or host")
    ulimits = {one.name: one for one in (parse_ulimit(text, "--ulimit") for text in given.ulimit)}
    security = parse_security_opts(given.security_opt, "--security-opt")
    if security.recorded:
        raise UsageError(
            f"--security-opt seccomp={security.seccomp}: a build is not recorded",
            hint="record a container: `sysbox run --security-opt seccomp=record:FILE`",
        )
    spec = ContainerSpec(
        image="scratch",
        limits=limits.limits(given),
        ulimits=tuple(ulimits.values()),
        shm_size=parse.parse_size(given.shm_size, "--shm-size") if given.shm_size else 64 << 20,
        add_hosts=tuple(parse_add_host(one, "--add-host") for one in given.add_host),
        dns=networks.dns(given, mode),
        group_add=_groups(given.group_add),
        mounts=tuple(_mount(one) for one in given.volume),
        namespaces=Namespaces(network=mode, user=given.userns or ""),
        networks=named,
        security=security.replace(
            cap_add=tuple(parse_cap(one, "--cap-add") for one in given.cap_add),
            cap_drop=tuple(parse_cap(one, "--cap-drop") for one in given.cap_drop),
        ),
    )
    if given.network_bandwidth:
        bandwidth = parse_bandwidth(given.network_bandwidth, "--network-bandwidth")
        spec = spec.replace(bandwidth=bandwidth)
    return settings.with_defaults(spec, chosen)


def given_to_steps(given: Values) -> Given:
    """The secrets and the ssh agents. Raises SpecError, UsageError."""
    secrets = dict(_secret(text) for text in given.secret)
    agents = dict(_agent(text) for text in given.ssh)
    return Given(secrets, agents)


def secret_source(text: str) -> tuple[str, str, str]:
    """(name, file, variable) of --secret: the value is in one of the last two. Raises UsageError."""
    fields = dict(_pair(part, "--secret") for part in text.split(","))
    name = fields.pop("id", "")
    kind = fields.pop("type", "")
    path = fields.pop("src", fields.pop("source", ""))
    variable = fields.pop("env", "")
    if not name or fields or kind not in ("", "file", "env"):
        raise UsageError(f"--secret {text}: not id=NAME,src=FILE or id=NAME,env=VARIABLE")
    if kind == "env" and not variable:
        path, variable = "", path or name
    return name, path, "" if path else variable or name


def _secret(text: str) -> tuple[str, bytes]:
    name, path, variable = secret_source(text)
    if path:
        return name, of_file(path, f"--secret {text}")
    return name, of_variable(variable, f"--secret {text}")


def _agent(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    path = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise SpecError(
            f"--ssh {text}: no agent: SSH_AUTH_SOCK is not set",
            hint="name its socket: --ssh default=PATH",
        )
    return name, parse.absolute(path)
