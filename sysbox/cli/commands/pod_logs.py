"""`sysbox pod logs`: the output of the containers of a pod, each line with the container that wrote it."""

from __future__ import annotations

import heapq

from sysbox.base.errors import NotFound
from sysbox.cli.commands import logs
from sysbox.container import pods, store
from sysbox.lifecycle.abreast import abreast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.container.store import Record
    from sysbox.units.journalread import LogLine


def main(values: Values) -> int:
    """0; with -f, once the containers have stopped."""
    records = _chosen(pods.resolve(values.pod), values.container)
    printers = {one.id: _printer(one, values) for one in records}
    if values.follow:
        abreast(records, lambda one: logs.show(one, values, printers[one.id]))
        return 0
    collected = (_Collected(one, values).found for one in records)
    for record, line in heapq.merge(*collected, key=lambda pair: pair[1].timestamp):
        printers[record.id].show(line)
    return 0


class _Collected(logs.Printer):
    """The lines of one container, in place of printing them."""

    def __init__(self, record: Record, values: Values) -> None:
        super().__init__({}, timestamps=False)
        self.found: list[tuple[Record, LogLine]] = []
        self._record = record
        logs.show(record, values, self)

    def show(self, line: LogLine) -> None:
        self.found.append((self._record, line))


def _chosen(pod: str, container: str | None) -> list[Record]:
    """The containers with a log. Raises NotFound for one that is not in the pod."""
    records = pods.records_of(pod)
    if container is not None:
        wanted = store.find(container).id
        records = [one for one in records if one.id == wanted]
        if not records:
            raise NotFound(f"container {container} is not in the pod {pod}")
    return [one for one in records if one.spec.logging.driver != "none"]


def _printer(record: Record, values: Values) -> logs.Printer:
    printer = logs.Printer({}, timestamps=values.timestamps)
    printer.details = f"{record.name if values.names else record.id[:12]} ".encode()
    printer.at_once = True
    return printer
