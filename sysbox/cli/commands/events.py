"""`sysbox events`: events of containers, images and volumes, past and new, from the journal."""

from __future__ import annotations

import os
import time

from sysbox.base.errors import FormatError, NotFound, SysboxError
from sysbox.base.visible import for_terminal, printable
from sysbox.cli.output import as_is, line
from sysbox.container import events, store
from sysbox.docker import template
from sysbox.docker.json import to_json
from sysbox.docker.shapes import Strings, Struct
from sysbox.lifecycle import control
from sysbox.parse.filters import grouped, has_label
from sysbox.parse.time import parse_moment
from sysbox.units import journal, journalread, names, watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Any

    from sysbox.cli.table.options import Values

    Event = dict[str, Any]

_FILTERS = (
    "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin",
    "scope", "secret", "service", "type", "volume",
)  # fmt: skip
_MICRO = 1_000_000
_CHUNK = 1 << 16
_GRACE = 1.0  # seconds for a supervisor to record the end itself


def main(values: Values) -> int:
    """0 once everything up to --until is printed; without it, until it is interrupted."""
    # what was sent may not have been read yet, and its time is that at which journald reads it
    journal.synchronize()
    now = time.time()
    since = parse_moment(values.since, "--since", now) if values.since else None
    until = parse_moment(values.until, "--until", now) if values.until else None
    wanted = grouped(values.filter, _FILTERS)
    show = _printer(values.format)
    import asyncio

    asyncio.run(_run(since, until, lambda event: _matches(event, wanted), show))
    return 0


async def _run(
    since: float | None,
    until: float | None,
    wanted: Callable[[Event], bool],
    show: Callable[[Event], None],
) -> None:
    import asyncio

    follow = until is None or until > time.time()
    watching = asyncio.create_task(_settle_unrecorded()) if follow else None
    try:
        async with asyncio.timeout(until - time.time() if until is not None and follow else None):
            async for event in _events(since, until, follow=follow):
                if wanted(event):
                    show(event)
    except TimeoutError:
        pass  # --until has come
    finally:
        if watching:
            watching.cancel()


async def _events(
    since: float | None, until: float | None, *, follow: bool
) -> AsyncIterator[Event]:
    """Events from the journal, oldest first."""
    import asyncio

    argv = journalread.event_arguments(
        list(events.MESSAGE_IDS.values()),
        follow=follow,
        since=None if since is None else int(since * _MICRO),
        until=None if until is None or follow else int(until * _MICRO),
    )
    pid, fd = journalread.start_journalctl(argv)
    # reaped here: asyncio's own child watcher would do it in a thread that outlives the loop
    try:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(fd), "rb", 0)
        )
        parser = journalread.Parser()
        while chunk := await reader.read(_CHUNK):
            for entry in parser.feed(chunk):
                event = events.parse(entry)
                if event is not None:
                    yield event
    finally:
        os.close(fd)
        journalread.stop_journalctl(pid)


async def _settle_unrecorded() -> None:
    """Record the end of containers whose supervisor died first: systemd reports that their scope is gone."""
    import asyncio

    try:
        async for change in watch.changes(begun=_settle_all):
            if change.active_state in ("gone", "inactive", "failed"):
                await asyncio.sleep(_GRACE)
                await asyncio.to_thread(_settle, names.container_of(change.unit))
    except SysboxError:
        return  # without the system bus only events that are in the journal are shown


def _settle_all() -> None:
    """Record the ends of the containers that ended before the watch began."""
    for container_id in store.ids():
        _settle(container_id)


def _settle(container_id: str) -> None:
    try:
        control.settle_if_dead(store.load(container_id))
    except (NotFound, FormatError):
        pass  # ignoring: removed meanwhile, or its record is damaged


def _printer(format: str | None) -> Callable[[Event], None]:
    if not format:
        # one line for each event, even if a label has a newline
        return lambda event: line(printable(_text(event)))
    if format == "json":
        return lambda event: line(to_json(event))
    render = template.compiled(format)

    def show(event: Event) -> None:
        actor = event["Actor"]
        typed = {**actor, "Attributes": Strings(actor["Attributes"])}
        text = render(Struct({**event, "Actor": typed}), lambda text: for_terminal(text, 1))
        as_is(text + "\n")

    return show


def _text(event: Event) -> str:
    """docker's line: time, type, action, id and attributes."""
    seconds, rest = divmod(event["timeNano"], 1_000_000_000)
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))
    zone = time.strftime("%z", time.localtime(seconds))
    known = event["Actor"]["Attributes"]
    attributes = ", ".join(f"{key}={known[key]}" for key in sorted(known))
    what = f"{event['Type']} {event['Action']} {event['Actor']['ID']}"
    return f"{moment}.{rest:09}{zone[:3]}:{zone[3:]} {what} ({attributes})"


def _matches(event: Event, wanted: dict[str, list[str]]) -> bool:
    """docker's rule: each key must match, by any of its values; of `label` all values must match."""
    kind, actor = event["Type"], event["Actor"]
    attributes: dict[str, str] = actor["Attributes"]

    def is_it(of: str, value: str) -> bool:
        named = attributes.get("name", actor["ID"])
        return bool(kind == of and (actor["ID"].startswith(value) or named == value))

    tests: dict[str, Callable[[str], bool]] = {
        "container": lambda value: is_it("container", value),
        "image": lambda value: is_it("image", value) or _is_image(attributes, value),
        # `event=health_status` matches the action "health_status: healthy" too
        "event": lambda value: value in (event["Action"], event["Action"].partition(":")[0]),
        "type": lambda value: kind == value,
        "scope": lambda value: event["scope"] == value,
    }
    for key, values in wanted.items():
        if key == "label":
            if not all(has_label(attributes, value) for value in values):
                return False
        elif key in tests:
            if not any(tests[key](value) for value in values):
                return False
        elif not any(is_it(key, value) for value in values):  # volume, and types of docker's alone
            return False
    return True


def _is_image(attributes: dict[str, str], value: str) -> bool:
    """Whether `value` names the image of an event's container, with its tag or without."""
    image = attributes.get("image", "")
    repository, colon, tag = image.rpartition(":")
    return value == image or bool(colon and "/" not in tag and value == repository)
