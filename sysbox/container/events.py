"""Events: a record in the journal for each thing that happens to a container, image, network and the like.

The names are docker's. Each has a MESSAGE_ID of its own (journald.conf(5), systemd.journal-fields(7)), so
that `journalctl MESSAGE_ID=...` finds all of a kind; the details are in SYSBOX_* fields. The process that
caused the event sends it as one datagram of the journal's native protocol, without waiting. An event is
signed, since any local user may write to the journal.
"""

from __future__ import annotations

import time

from sysbox.base import codec
from sysbox.base.errors import FormatError, SysboxError
from sysbox.linux import unix
from sysbox.units import journal, signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from struct import Struct
    from typing import Any

    from sysbox.container.records import Record
else:
    from _struct import Struct


# (type, action) -> MESSAGE_ID; never changed once released
MESSAGE_IDS = {
    ("container", "create"): "4777de94762f4f4c948a2aa60f3c10df",
    ("container", "start"): "0c782b4af404427e958995d28029bd63",
    ("container", "restart"): "714b7dbe6f3f4bad98527b961a438c9e",
    ("container", "die"): "06cee3978a5b4096a2fd90533c865ce7",
    ("container", "kill"): "d30ed4a30bec42e095bf04c85e62e415",
    ("container", "stop"): "27dc8a04c2784bcba7e887b863473cee",
    ("container", "oom"): "f774072d8ba5418d9bb3ea23b1d77ab4",
    ("container", "pause"): "08d2820e8f394b3ca3884eb0cb26867d",
    ("container", "unpause"): "cf457032b92e402fbac88425a21b262d",
    ("container", "destroy"): "0dd3db6d407d4d7aa2ff5d00454f7c5d",
    ("container", "rename"): "9005f40edf424bc382e8f610c1a0c07e",
    ("container", "update"): "914b419aef1848908b511c8810ba866c",
    ("container", "attach"): "447b0819ba9342a69a752920044c90fb",
    ("container", "detach"): "b0da6753b69d4aa895ecd1f7018b120c",
    ("container", "exec_create"): "c8a173b104264cf0aadab1289356ec23",
    ("container", "exec_start"): "ed749cbb02cb432e80d214de73c1d4a9",
    ("container", "exec_detach"): "a50ae3bf52e8494dbfe6cc46846d727b",
    ("container", "exec_die"): "33af0342b7624bfc87033aa519ed420d",
    ("container", "health_status"): "51352a851cd74c14becd107031d12e2e",
    ("container", "resize"): "3c6aaf3be81447a4b1c1048a8a5e593c",
    ("container", "top"): "f4847bf8a9794c71819c317ec0ccb52d",
    ("container", "copy"): "d3b47aa364dd446f8b7eaef364ffcd29",
    ("container", "commit"): "4b128bda33e241b18db7f33e4c004e13",
    ("container", "export"): "6912e7e6d53244b0837ca4708d7e081c",
    ("container", "prune"): "1e272443bb114831aa765bc90a1dbc6c",
    ("image", "import"): "3c76bab4430f4ce4bfa26fff4ae8cd01",
    ("image", "tag"): "be5c3637758c4032b2cfc6933e550cfc",
    ("image", "untag"): "2c5356332d6546f390e6de90d2a8c35a",
    ("image", "delete"): "059989d95d184753ac01af22e055f4ae",
    ("image", "pull"): "db812880948e49e9a203f3860232d83d",
    ("image", "push"): "919fa504e27441bfacf161f2a7d4fd46",
    ("image", "save"): "30f3e249b58341caa1d77ca4d5bac870",
    ("image", "load"): "597f158b2b69414d83ce40fc49379790",
    ("image", "prune"): "f372c45093674917b0a42f8e90892e11",
    ("image", "build"): "7227f97faee04b0b8e905e3537dc9109",
    ("builder", "prune"): "2f966cd4c222447d80ebc460c00807b6",
    ("volume", "create"): "9e96829c72724380a75da2080c26b023",
    ("volume", "destroy"): "94622063e077418b936fd182dc193435",
    ("volume", "prune"): "4cdff7e12b5d42d1bf04efca1caffad8",
    ("secret", "create"): "06d1a43632f84c01c9c9b9a52edc7e33",
    ("secret", "remove"): "404028f8e4765e2dc7011954c5c21366",
    ("network", "create"): "37433eff3b524791884666bc2c2eeb56",
    ("network", "connect"): "03cb3ccf0a3e426ea672c6528d7e2ade",
    ("network", "disconnect"): "7494cee94797466dabd497290513c760",
    ("network", "destroy"): "de837f0c53264fb58ca2eb93d159eaf9",
    ("network", "update"): "7084ff5f715e4232b2132caa6174bf29",
    ("network", "prune"): "4e9c9147285f4ca3ab3e2d944fc885e9",
}

_TIME_DIGITS = 19  # of nanoseconds since 1970 that fit into 63 bits
_LE64 = Struct("<Q").pack
_VALUE_MAX = 16 << 10  # characters of one attribute; a label has no bound of its own
_DATAGRAM_MAX = 160 << 10  # bytes; journald takes a larger message as a file only


def container(action: str, record: Record, **attributes: str) -> None:
    """Emit an event of a container; `attributes` are docker's for this action, such as exitCode."""
    send(of_container(action, record, **attributes))


def of_container(action: str, record: Record, **attributes: str) -> bytes:
    """The message of a container's event, for `send`."""
    known = {**record.spec.labels, "image": record.image_name, "name": record.name, **attributes}
    return _message(
        "container", action, record.id, known, record.name, log=record.spec.logging.driver
    )


def image(action: str, image_id: str, labels: dict[str, str], name: str = "") -> None:
    """Emit an event of an image; as in docker, the attributes are its labels and `name`, or its id."""
    emit("image", action, image_id, {**labels, "name": name or image_id}, name)


def pruned(kind: str, size: int) -> None:
    """Emit the event of a prune of `kind`, which freed `size` bytes."""
    emit(kind, "prune", "", {"reclaimed": str(size)})


def emit(kind: str, action: str, actor: str, attributes: dict[str, str], name: str = "") -> None:
    """Emit an event: `kind` is one of those in MESSAGE_IDS, `actor` its id (of a volume: its name).

    Raises KeyError for an action that is not docker's.
    """
    send(_message(kind, action, actor, attributes, name))


def send(message: bytes) -> None:
    """Send an event. One that cannot be sent is lost: the action that it reports must not fail for that."""
    try:
        unix.send(journal.SOCKET, message, wait=False)
    except OSError:
        pass  # ignoring: journald does not run, or its socket's queue is full


def warn(text: str, record: Record) -> None:
    """Write a line about a container to the journal, for who looks for what went wrong; it is no event."""
    fields = {
        "MESSAGE": text,
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "sysbox",
        "SYSBOX_ID": record.id,
        "SYSBOX_NAME": record.name,
    }
    send(b"".join(map(_field, _encoded(fields).items())))


def _message(
    kind: str, action: str, actor: str, attributes: dict[str, str], name: str, log: str = ""
) -> bytes:
    """`log` is the driver of a container's log, for `logs` of one that was removed."""
    fields = {
        "MESSAGE": f"{kind} {action} {name or actor}",
        # "health_status: healthy" is of the kind health_status
        "MESSAGE_ID": MESSAGE_IDS[kind, action.partition(":")[0]],
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "sysbox",
        "SYSBOX_TYPE": kind,
        "SYSBOX_ACTION": action,
        "SYSBOX_ID": actor,
        "SYSBOX_NAME": name or actor,
        "SYSBOX_TIME_NSEC": str(time.time_ns()),
        "SYSBOX_ATTRIBUTES": codec.dumps(_shortened(attributes)).decode().rstrip("\n"),
    }
    if log:
        fields["SYSBOX_LOG_DRIVER"] = log
    encoded = _encoded(fields)
    try:
        encoded[signature.FIELD.encode()] = signature.sign(encoded, signature.ensure_key())
    except SysboxError:
        pass  # ignoring: `events` skips an unsigned event, but journalctl shows it
    return b"".join(map(_field, encoded.items()))


def _encoded(fields: dict[str, str]) -> dict[bytes, bytes]:
    return {key.encode(): value.encode("utf-8", "surrogateescape") for key, value in fields.items()}


def _shortened(attributes: dict[str, str]) -> dict[str, str]:
    """The attributes that fit into a datagram; where not all do, the short ones. Long values are cut."""
    kept: dict[str, str] = {}
    left = _DATAGRAM_MAX
    for key in sorted(attributes, key=lambda one: len(attributes[one])):
        left -= 6 * (len(key) + min(len(attributes[key]), _VALUE_MAX))  # \uXXXX at worst
        if left < 0:
            break
        kept[key] = attributes[key][:_VALUE_MAX]
    return kept


def _field(field: tuple[bytes, bytes]) -> bytes:
    """One field of the native protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    key, data = field
    if b"\n" not in data:
        return b"%s=%s\n" % (key, data)
    return b"%s\n%s%s\n" % (key, _LE64(len(data)), data)


def parse(entry: dict[bytes, bytes]) -> dict[str, Any] | None:
    """An event in docker's JSON form from an entry of the journal; None where its signature is not sysbox's:
    any local user may have written it.
    """
    from sysbox.units import journalread  # not needed to emit an event

    return read(entry) if journalread.is_trusted(entry) else None


def read(entry: dict[bytes, bytes]) -> dict[str, Any] | None:
    """The event in an entry that is trusted; None where it is no event, or a damaged one."""
    try:
        kind, action, actor, attributes = (
            entry[b"SYSBOX_" + name].decode() for name in (b"TYPE", b"ACTION", b"ID", b"ATTRIBUTES")
        )
        known = codec.loads(attributes, "an event")
        moment = entry[b"SYSBOX_TIME_NSEC"]
        mark = entry[b"MESSAGE_ID"].decode()
    except (KeyError, ValueError, FormatError):
        return None
    if mark != MESSAGE_IDS.get((kind, action.partition(":")[0])) or not _is_plain(known):
        return None
    if len(moment) > _TIME_DIGITS or not moment.isdigit():
        return None
    nanoseconds = int(moment)
    image = known.get("image", "") if kind == "container" else ""
    return {
        "status": "" if kind in ("volume", "network") else action,
        "id": "" if kind in ("volume", "network") else actor,
        "from": image,
        "Type": kind,
        "Action": action,
        "Actor": {"ID": actor, "Attributes": known},
        "scope": "local",
        "time": nanoseconds // 1_000_000_000,
        "timeNano": nanoseconds,
    }


def _is_plain(attributes: object) -> bool:
    return type(attributes) is dict and all(type(one) is str for one in attributes.values())
