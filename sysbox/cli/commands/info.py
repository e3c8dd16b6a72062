"""`sysbox info`: what sysbox found on this host."""

from __future__ import annotations

from sysbox.cli.output import line, print_object, warn
from sysbox.docker.info import collect
from sysbox.lifecycle.repair import all_repaired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0."""
    found = collect([status.state for _, status in all_repaired(warn)])
    if values.format:
        print_object(found, values.format)
        return 0
    for depth, name, value in _lines(found):
        line(" " * depth + f"{name}: {_text(value)}".rstrip())
    return 0


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _lines(found: dict[str, Any]) -> Iterator[tuple[int, str, Any]]:
    """(depth, name, value), with docker's names and in its order."""
    yield 0, "Client", ""
    yield 1, "Context", found["ClientInfo"]["Context"]
    yield 1, "Debug Mode", found["ClientInfo"]["Debug"]
    yield 0, "Server", ""
    yield 1, "Containers", found["Containers"]
    for state in ("Running", "Paused", "Stopped"):
        yield 2, state, found[f"Containers{state}"]
    yield 1, "Images", found["Images"]
    yield 1, "Server Version", found["ServerVersion"]
    yield 1, "Storage Driver", found["Driver"]
    for name, value in found["DriverStatus"]:
        yield 2, name, value
    yield 1, "Logging Driver", found["LoggingDriver"]
    yield 1, "Cgroup Driver", found["CgroupDriver"]
    yield 1, "Cgroup Version", found["CgroupVersion"]
    yield 2, "Controllers", found["Sysbox"]["Controllers"]
    yield 1, "Plugins", ""
    for name in ("Volume", "Network", "Log"):
        yield 2, name, found["Plugins"][name]
    yield 1, "Swarm", found["Swarm"]["LocalNodeState"]
    yield 1, "Runtimes", list(found["Runtimes"])
    yield 1, "Default Runtime", found["DefaultRuntime"]
    yield 1, "Init Binary", found["InitBinary"]
    yield 1, "systemd Version", found["Sysbox"]["SystemdVersion"]
    yield 1, "Namespaces", found["Sysbox"]["Namespaces"]
    yield from _machine(found)
    for warning in found["Warnings"]:
        yield 0, "WARNING", warning.removeprefix("WARNING: ")


def _machine(found: dict[str, Any]) -> Iterator[tuple[int, str, Any]]:
    yield 1, "Security Options", ""
    for option in found["SecurityOptions"]:
        first, *others = (part.partition("=") for part in option.split(","))
        yield 2, first[2], ""
        for name, _, value in others:
            yield 3, name.capitalize(), value
    yield 1, "Kernel Version", found["KernelVersion"]
    yield 1, "Operating System", found["OperatingSystem"]
    yield 1, "OSType", found["OSType"]
    yield 1, "Architecture", found["Architecture"]
    yield 1, "CPUs", found["NCPU"]
    yield 1, "Total Memory", f"{found['MemTotal'] / (1 << 30):.4g}GiB"
    yield 1, "Name", found["Name"]
    yield 1, "ID", found["ID"]
    yield 1, "Docker Root Dir", found["DockerRootDir"]
    configuration = dict(found["Sysbox"]["Configuration"])
    yield 1, "Configuration", configuration.pop("Files") or "no sysbox.conf"
    for section, keys in configuration.items():
        for name, value in keys.items():
            yield 2, f"{section}.{name}", value
    yield 1, "Debug Mode", found["Debug"]
    yield 1, "Experimental", found["ExperimentalBuild"]
    yield 1, "Live Restore Enabled", found["LiveRestoreEnabled"]
