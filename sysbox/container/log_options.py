"""`--log-opt tag=`, `labels=` and `env=`: the attributes of each line of a log, by docker's names."""

from __future__ import annotations

from sysbox.base import codec
from sysbox.units import journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record

_ATTRIBUTES_MAX = 64 << 10  # characters of the attributes in each line of a json-file


def sink(record: Record) -> journal.Sink:
    """Open the container's sink in the journal, under its tag, else its name. Raises KernelError."""
    return journal.open_sink(tag(record) or record.name, record.spec.logging)


def tag(record: Record) -> str:
    """The tag that was asked for, with its placeholders replaced; "" for none."""
    image_id = record.image_id.removeprefix("sha256:")
    text = record.spec.logging.tag
    for name, value in {
        "ID": record.id[:12],
        "FullID": record.id,
        "Name": record.name,
        "ImageID": image_id[:12],
        "ImageFullID": record.image_id,
        "ImageName": record.image_name,
        "DaemonName": "sysbox",
    }.items():
        text = text.replace(f"{{{{.{name}}}}}", value)
    return text


def attributes(record: Record, image_env: tuple[str, ...]) -> dict[str, str]:
    """The labels and variables that were asked for and exist; without the tag."""
    logging = record.spec.logging
    if not (logging.labels or logging.env):
        return {}
    variables = dict(one.partition("=")[::2] for one in (*image_env, *record.spec.env))
    found = {
        name: record.spec.labels[name] for name in logging.labels if name in record.spec.labels
    }
    return found | {name: variables[name] for name in logging.env if name in variables}


def fields(record: Record, image_env: tuple[str, ...]) -> dict[str, str]:
    """The journal fields of each line (systemd.journal-fields(7))."""
    known = journal.container_fields(record.id, record.name, record.image_name)
    if given := tag(record):
        known["CONTAINER_TAG"] = given
    for name, value in attributes(record, image_env).items():
        key = field_name(name)
        if key and key not in known:
            known[key] = value
    return known


def field_name(name: str) -> str:
    """As docker's driver has it: upper case, "_" for other than letters and digits, a letter in front."""
    plain = "".join(char.upper() if char.isascii() and char.isalnum() else "_" for char in name)
    return plain.lstrip("_0123456789")[:64]


def json_attributes(record: Record, image_env: tuple[str, ...]) -> str:
    """The JSON after the text in each line of a json-file: `"attrs":{...},`, or "" for none."""
    found = attributes(record, image_env)
    if given := tag(record):
        found["tag"] = given
    if not found:
        return ""
    text = f'"attrs":{codec.dumps(found).decode().strip()},'
    return text if len(text) <= _ATTRIBUTES_MAX else ""
