"""Sockets of a `.container` file: the units by which systemd opens them, and starts the container. Pure."""

from __future__ import annotations

from sysbox.base.errors import FormatError
from sysbox.units.quadlet import socketfiles
from sysbox.units.quadlet.units import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.conversion import Conversion
    from sysbox.units.quadlet.sources import Source

_LISTEN = ("ListenStream", "ListenDatagram", "ListenSequentialPacket")
_IDLE = {"IdleStop": "stop", "IdleFreeze": "freeze"}
_SHARED = ("none", "host", "container", "ns", "slirp4netns", "pasta")  # of Network=
_SECONDS_MAX = 10 * 365 * 24 * 3600
_FILES = "65536"  # descriptors of the proxy, which needs six for each connection


def convert(made: Conversion) -> None:
    """Add the socket unit, if the file has sockets, and that of the proxy. [Install] is the socket's then.

    Raises FormatError.
    """
    section = made.section
    listens = [(key, value) for key in _LISTEN for value in section.all(key)]
    for key, value in listens:
        _check_address(made, key, value)
    own = _own_keys(made)
    unit = made.declared.service_of(made.source.name)
    if files := socketfiles.of_container(made.source, made.declared):
        _add_files(made, unit, files, [key for key, _ in listens])
        return
    socket = f"{unit.removesuffix('.service')}.socket"
    if not listens and not any(key.startswith("Listen") for key, _ in own):
        _refuse_without(made, own)
        return
    starts: tuple[tuple[str, str], ...] = ()
    needed = instance_of(socket)
    if "ProxyPort" in section:
        starts = (("Service", _add_proxy(made, unit, needed)),)
    else:
        _refuse_idle(made)
        # started by hand it is to have its sockets, too
        made.unit += [("Requires", needed), ("After", needed)]
    made.installs = False
    made.more.append(
        Service(
            unit=socket,
            source=made.source,
            section="Socket",
            unit_keys=(("Description", f"Sockets of {made.source.name}"),),
            service_keys=(*listens, *starts, *own),
        )
    )


def _refuse_without(made: Conversion, own: list[tuple[str, str]]) -> None:
    """Raise FormatError for what needs a socket, where there is none."""
    for key in ("ProxyPort", *_IDLE):
        if key in made.section:
            raise made.section.wrong(key, "there is no socket", "ListenStream= is one")
    if own:
        raise FormatError(
            f"{made.source.path}: [Socket] without a socket", hint="ListenStream= is one"
        )


def _add_files(made: Conversion, unit: str, files: list[Source], listens: list[str]) -> None:
    """Add the sockets of `.socket` files, and the proxy; [Install] of the container's file is its own."""
    section = made.section
    if listens:
        raise section.wrong(listens[0], f"{files[0].path} has the sockets", "set it there")
    if own := [one for one in made.source.assignments if one.section == "Socket"]:
        where = f"{own[0].file}:{own[0].line}: {own[0].key}="
        raise FormatError(f"{where}: {files[0].path} has the sockets", hint="set it there")
    # a socket of one instance is not for the others
    its = [one for one in files if one.is_template or not made.source.is_template]
    needed = " ".join(instance_of(one.name) for one in its)
    target = instance_of(unit)
    if "ProxyPort" in section:
        for one in files:
            _check_streams(one)
        target = _add_proxy(made, unit, needed)
    else:
        _refuse_idle(made)
        made.unit += [("Requires", needed), ("After", needed)] if needed else []
    made.more += [socketfiles.unit_of(one, made.declared, target, made.source) for one in files]


def _check_streams(source: Source) -> None:
    for one in source.assignments:
        if (one.section, one.key) in [("Socket", key) for key in _LISTEN[1:]]:
            where = f"{one.file}:{one.line}: {one.key}="
            raise FormatError(
                f"{where}: with ProxyPort= there are streams only", hint="ListenStream="
            )


def instance_of(unit: str) -> str:
    """How a unit of a template names another one, in its own instance."""
    return unit.replace("@.", "@%i.")


def _add_proxy(made: Conversion, unit: str, socket: str) -> str:
    """Add the service that takes the connections; its name, as other units of a template name it."""
    port = _port(made)
    base, at, instance = unit.removesuffix(".service").partition("@")
    proxy = f"{base}-proxy{at}{instance}.service"
    action, seconds = _idle(made)
    target = instance_of(unit)
    keys = [
        ("Type", "notify"),
        ("SyslogIdentifier", "%N"),
        ("LimitNOFILE", _FILES),
        # the container's own service says how long its start may take
        ("TimeoutStartSec", "infinity"),
        ("ExecStart", made.command("_proxy", target, port, *((action, seconds) if action else ()))),
    ]
    if action:
        keys.append(("ExecStopPost", made.command("_proxy", f"--idle={action}", target)))
        # a container that comes and goes is started often
        made.unit.append(("StartLimitBurst", "20"))
    made.more.append(
        Service(
            unit=proxy,
            source=made.source,
            unit_keys=(
                ("Description", f"Connections to {made.source.name}"),
                ("BindsTo", target),
                *((("Requires", socket),) if socket else ()),
                ("After", f"{target} {socket}".rstrip()),
                ("StartLimitIntervalSec", "0"),
            ),
            service_keys=tuple(keys),
            installs=False,
        )
    )
    return instance_of(proxy)


def _port(made: Conversion) -> str:
    """ProxyPort=. Raises FormatError where no proxy can connect to the container."""
    section = made.section
    port = section.one("ProxyPort")
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise section.wrong(
            "ProxyPort", f"{port!r} is not a port", "1 to 65535, as in the container"
        )
    for key in ("ListenDatagram", "ListenSequentialPacket"):
        if key in section:
            raise section.wrong(key, "with ProxyPort= there are streams only", "ListenStream=")
    if "Pod" in section:
        raise section.wrong("ProxyPort", "with Pod= the address is that of the pod")
    for text in section.all("Network"):
        name = text.partition(":")[0]
        if name in _SHARED or name.endswith(".container"):
            raise section.wrong(
                "ProxyPort",
                f"with Network={text} the container has no address of its own",
                "a network of links, or leave ProxyPort= out: the payload gets the socket itself",
            )
    return port


def _idle(made: Conversion) -> tuple[str, str]:
    """(what is done when no connection is left, after how many seconds), "" for nothing."""
    section = made.section
    given = [key for key in _IDLE if key in section]
    if not given:
        return "", ""
    if len(given) > 1:
        raise section.wrong(given[1], f"cannot be set together with {given[0]}=")
    seconds = section.one(given[0])
    if not seconds.isdecimal() or not 0 < int(seconds) <= _SECONDS_MAX:
        raise section.wrong(given[0], f"{seconds!r} is not a number of seconds", "1 or more")
    if given[0] == "IdleFreeze" and _has_watchdog(made):
        raise section.wrong(given[0], "a frozen container cannot feed the watchdog of WatchdogSec=")
    return _IDLE[given[0]], seconds


def _has_watchdog(made: Conversion) -> bool:
    values = [
        one.value
        for one in made.source.assignments
        if (one.section, one.key) == ("Service", "WatchdogSec")
    ]
    return bool(values) and values[-1] not in ("", "0", "infinity")


def _refuse_idle(made: Conversion) -> None:
    for key in _IDLE:
        if key in made.section:
            raise made.section.wrong(
                key,
                "it needs ProxyPort=: nobody but the payload sees connections to its own sockets",
            )


def _own_keys(made: Conversion) -> list[tuple[str, str]]:
    """The file's own [Socket]. Raises FormatError."""
    found = []
    for one in made.source.assignments:
        if one.section != "Socket":
            continue
        socketfiles.check_accept(one)
        if one.key == "Service":
            where = f"{one.file}:{one.line}: {one.key}="
            raise FormatError(f"{where}: the socket is this container's", hint="leave it out")
        found.append((one.key, one.value))
    return found


def _check_address(made: Conversion, key: str, value: str) -> None:
    """Raise FormatError for what is no address of a socket; systemd reads the rest (systemd.socket(5))."""
    if value.startswith(("/", "@", "%", "vsock:")) or "%" in value:
        return
    port = value.rpartition(":")[2]
    if not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise made.section.wrong(
            key,
            f"{value!r} is not the address of a socket",
            "PORT, ADDRESS:PORT or /PATH, as in systemd.socket(5)",
        )
