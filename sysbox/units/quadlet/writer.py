"""Write a declaration: the flags of a verb as the keys of its section, the inverse of `convert`. Pure.

A value that a key cannot have as it is, and a flag without a key, become words of PodmanArgs=. systemd
expands specifiers and variables in what a unit runs (systemd.unit(5), systemd.service(5)): "%" and "$" are
doubled.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen
from sysbox.units import names, syntax
from sysbox.units.quadlet.conversion import word
from sysbox.units.quadlet.keys import ALL, BOOL, ONE, PAIRS, SECTIONS, WORDS
from sysbox.units.quadlet.sources import MAX_FILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from sysbox.units.quadlet.keys import Key

    # a flag and its value; None: a switch that is on
    Flag = tuple[str, str | None]
    Pairs = list[tuple[str, str]]

_UPDATE = "io.containers.autoupdate"
# of the command that starts a container, not of the container; a service removes it, and restarts it
_DROPPED = (
    "--attach", "--detach", "--dry-run", "--quiet", "--replace", "--rm", "--sig-proxy", "--unit-file",
)  # fmt: skip
_REFERENCES = (".volume", ".network", ".container", ".image", ".build", ".pod", ".artifact")
_RESTART_SEC = (
    "5s"  # with it, systemd's start limit of five in ten seconds does not end what docker restarts
)


class Sockets(Frozen):
    """The sockets of a container, as (key, value) of a file each."""

    keys: tuple[tuple[str, str], ...] = ()  # of [Container]
    socket: tuple[tuple[str, str], ...] = ()  # of [Socket]
    install: tuple[tuple[str, str], ...] = ()  # of [Install]
    # of each file beside that of the container: [Socket] and [Install]
    beside: tuple[tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]], ...] = ()

    def files(self, name: str) -> dict[str, str]:
        """The `.socket` files of a container of that name, by their names."""
        made = {}
        for count, (socket, install) in enumerate(self.beside):
            keys = [
                *(one for one in socket if one[0] != "Service"),
                ("Service", f"{name}.container"),
            ]
            sections = (("Socket", keys), ("Install", install))
            text = syntax.dump(
                [one for one in sections if one[1]], f"sysbox wrote this of the container {name}"
            )
            made[f"{name}{f'-{count}' if count else ''}.socket"] = text
        return made


def container(
    flags: Iterable[Flag],
    image: str,
    command: Iterable[str],
    *,
    comment: str,
    declared: Collection[str] = (),
    unit: Iterable[tuple[str, str]] = (),
    service: Iterable[tuple[str, str]] = (),
    sockets: Sockets | None = None,
) -> str:
    """The text of a `.container` whose service makes what `sysbox run` makes of these flags.

    Paths in flags are absolute. `declared` are the names of files beside it that it may refer to; `unit` and
    `service` are further keys of [Unit] and [Service]. Raises SpecError for what no file can say.
    """
    made = _Declaration("Container", declared)
    made.unit += unit
    made.service += service
    made.keys.append(("Image", escaped(_image(image))))
    made.add(flags)
    if sockets:
        made.keys += sockets.keys
        made.socket += sockets.socket
        if sockets.keys or sockets.beside:
            made.install[:] = sockets.install
    words = [word(escaped(one)) for one in command]
    if words:
        made.keys.append(("Exec", " ".join(words)))
    return made.text(comment)


def _image(name: str) -> str:
    """The name of an image, not to be taken for that of a file. Raises SpecError."""
    if not name.endswith((".image", ".build")):
        return name
    if ":" in name.rpartition("/")[2]:
        raise SpecError(
            f"Image={name}: a declaration takes a name that ends so for a file",
            hint="give the image another name with `sysbox tag`",
        )
    return f"{name}:latest"


def resource(kind: str, flags: Iterable[Flag], name: str, *, comment: str) -> str:
    """The text of a `.volume` or `.network` for an existing resource. Raises SpecError."""
    made = _Declaration(kind.capitalize(), ())
    made.keys.append((f"{kind.capitalize()}Name", escaped(name)))
    made.add(flags)
    return made.text(comment)


def pod(
    flags: Iterable[Flag], name: str, *, comment: str, declared: Collection[str], starts: bool
) -> str:
    """The text of a `.pod` for a pod; with `starts` its service can be enabled. Raises SpecError."""
    made = _Declaration("Pod", declared)
    made.keys.append(("PodName", escaped(name)))
    made.add(flags)
    if starts:
        made.install.append(("WantedBy", "multi-user.target"))
    return made.text(comment)


def escaped(text: str) -> str:
    """A text in which systemd expands nothing."""
    return syntax.escape_specifiers(text).replace("$", "$$")


class _Declaration:
    """One file, while its flags are gone through."""

    def __init__(self, section: str, declared: Collection[str]) -> None:
        self.section = section
        self.declared = declared
        self.unit: Pairs = []
        self.keys: Pairs = []
        self.arguments: list[str] = []  # of PodmanArgs=
        self.service: Pairs = []
        self.socket: Pairs = []
        self.install: Pairs = []
        self._by_flag: dict[str, Key] = {
            one.flag: one for one in SECTIONS[section] if one.flag and not one.refused
        }
        self._known = {one.name for one in SECTIONS[section] if not one.refused}

    def add(self, flags: Iterable[Flag]) -> None:
        """Each flag, the values of a repeated one together and in their order."""
        by_name: dict[str, list[str | None]] = {}
        for name, value in flags:
            by_name.setdefault(name, []).append(value)
        for name, values in by_name.items():
            if name in _DROPPED:
                continue
            own = _SPECIAL.get(self.section, {}).get(name)
            texts = [value if value is not None else "true" for value in values]
            key = self._by_flag.get(name)
            if own(self, texts) if own else key is not None and self.key(key, texts):
                continue
            for value in values:
                flag = name if value is None else f"{name}={value}"
                self.arguments.append(word(escaped(flag)))

    def key(self, key: Key, values: list[str]) -> bool:
        """Assign the values to a key; False, and nothing, if it cannot have one of them."""
        made = []
        for value in values[-1:] if key.kind in (ONE, BOOL) else values:
            text = _text(key, value)
            if text is None:
                return False
            made.append((key.name, text))
        self.keys += made
        return True

    def assign(self, name: str, kind: str, values: list[str]) -> bool:
        """As `key`, of a key that has no flag by itself; False where the table does not have it."""
        if name not in self._known:
            return False
        key = next(one for one in SECTIONS[self.section] if one.name == name)
        return self.key(key.replace(kind=kind), values)

    def text(self, comment: str) -> str:
        """The file. Raises SpecError if it is larger than a reader takes."""
        first = ("Image", "ContainerName")
        keys = [one for name in first for one in self.keys if one[0] == name]
        keys += [one for one in self.keys if one[0] not in (*first, "Exec")]
        keys += [("PodmanArgs", one) for one in self.arguments]
        keys += [one for one in self.keys if one[0] == "Exec"]
        sections = (
            ("Unit", self.unit), (self.section, keys), ("Service", self.service), ("Socket", self.socket),
            ("Install", self.install),
        )  # fmt: skip
        made = syntax.dump([one for one in sections if one[1] or one[0] == self.section], comment)
        size = len(made.encode("utf-8", "surrogateescape"))
        if size > MAX_FILE:
            raise SpecError(
                f"the file would have {size} bytes, a declaration may have {MAX_FILE >> 20} MiB",
                hint="put a long command or environment into a file of its own, as with --env-file",
            )
        return made


def _text(key: Key, value: str) -> str | None:
    """What stands after the "=" for one value; None if the key cannot say it."""
    if key.kind == BOOL:
        return "yes" if value == "true" else "no"
    if key.kind == PAIRS:
        name, _, rest = value.partition("=")
        return word(escaped(f"{name}={rest}")) if name else None
    if key.kind == WORDS:
        return word(escaped(value))
    text = escaped(value)
    if key.kind == ALL and not text:
        return None  # an empty one would discard those before it
    try:
        syntax.assignment(key.name, text)
    except SpecError:
        return None
    return text


def _user(made: _Declaration, values: list[str]) -> bool:
    user, colon, group = values[-1].partition(":")
    if not user or (colon and not group):
        return False
    made.keys.append(("User", escaped(user)))
    if group:
        made.keys.append(("Group", escaped(group)))
    return True


def _read_only(made: _Declaration, _values: list[str]) -> bool:
    # `run --read-only` mounts nothing over /tmp and the like by itself
    made.keys += [("ReadOnly", "yes"), ("ReadOnlyTmpfs", "no")]
    return True


def _volumes(made: _Declaration, values: list[str]) -> bool:
    found = []
    for text in values:
        origin, colon, rest = text.partition(":")
        if colon and f"{origin}.volume" in made.declared:
            found.append(f"{origin}.volume:{rest}")
        elif origin.endswith(_REFERENCES):
            return False
        else:
            found.append(text)
    return made.assign("Volume", ALL, found)


def _mounts(made: _Declaration, values: list[str]) -> bool:
    for text in values:
        for part in text.split(","):
            name, _, value = part.partition("=")
            if name in ("source", "src") and value.endswith(_REFERENCES):
                return False
    return made.assign("Mount", ALL, values)


def _networks(made: _Declaration, values: list[str]) -> bool:
    found = []
    for text in values:
        origin, colon, rest = text.partition(":")
        if f"{origin}.network" in made.declared:
            found.append(f"{origin}.network{colon}{rest}")
        elif origin == "container" and f"{rest}.container" in made.declared:
            found.append(f"{rest}.container")
        elif origin.endswith(_REFERENCES):
            return False
        else:
            found.append(text)
    return made.assign("Network", ALL, found)


def _pod(made: _Declaration, values: list[str]) -> bool:
    name = f"{values[-1]}.pod"
    return name in made.declared and made.assign("Pod", ONE, [name])


def _exit_policy(made: _Declaration, values: list[str]) -> bool:
    return made.assign("ExitPolicy", ONE, values)


def _labels(made: _Declaration, values: list[str]) -> bool:
    updates = [one for one in values if one.partition("=")[0] == _UPDATE]
    if len(updates) == 1 and updates[0].partition("=")[2] in ("registry", "local"):
        values = [one for one in values if one not in updates]
        made.keys.append(("AutoUpdate", updates[0].partition("=")[2]))
    return made.assign("Label", PAIRS, values)


def _restart(made: _Declaration, values: list[str]) -> bool:
    """Restart= of the service, and its start at boot; on-failure:N is a start limit, as in serviceplan."""
    policy, colon, retries = values[-1].partition(":")
    if policy == "no":
        return True
    if colon and int(retries or 0):
        limit = (
            ("StartLimitIntervalSec", "infinity"),
            ("StartLimitBurst", str(int(retries) + 1)),
        )
        made.unit += limit
    restart = "on-failure" if policy == "on-failure" else "always"
    made.service += [("Restart", restart), ("RestartSec", _RESTART_SEC)]
    made.install.append(("WantedBy", "multi-user.target"))
    return True


def _slice(made: _Declaration, values: list[str]) -> bool:
    made.service.append(("Slice", escaped(names.check_slice(values[-1]))))
    return True


def _security(made: _Declaration, values: list[str]) -> bool:
    """The keys of single options; what has none goes into PodmanArgs=."""
    for text in values:
        name, equals, value = text.partition("=")
        key, kind = _SECURITY.get(name, ("", ""))
        if kind == BOOL and value in ("", "true"):
            value = "true"
        elif kind == BOOL or not equals:
            key = ""
        if not (key and made.assign(key, kind, [value])):
            made.arguments.append(word(escaped(f"--security-opt={text}")))
    return True


_SECURITY = {
    "apparmor": ("AppArmor", ONE),
    "mask": ("Mask", WORDS),
    "no-new-privileges": ("NoNewPrivileges", BOOL),
    "seccomp": ("SeccompProfile", ONE),
    "unmask": ("Unmask", WORDS),
}


def _ready(made: _Declaration, values: list[str]) -> bool:
    text = {"container": "yes", "healthy": "healthy"}.get(values[-1])
    if text:
        made.keys.append(("Notify", text))
    return text is not None


def _words(name: str) -> Callable[[_Declaration, list[str]], bool]:
    return lambda made, values: made.assign(name, WORDS, values)


def _options(made: _Declaration, values: list[str]) -> bool:
    """Of a volume: the words of mount(8), each of which has its key."""
    for text in values:
        name, _, value = text.partition("=")
        key = {"type": "Type", "device": "Device", "o": "Options"}.get(name, "")
        if not (key and value and made.assign(key, ONE, [value])):
            made.arguments.append(word(escaped(f"--opt={text}")))
    return True


_CONTAINER: dict[str, Callable[[_Declaration, list[str]], bool]] = {
    "--cgroup-parent": _slice,
    "--device": _words("AddDevice"),
    "--env-file": _words("EnvironmentFile"),
    "--label": _labels,
    "--mount": _mounts,
    "--network": _networks,
    "--pod": _pod,
    "--read-only": _read_only,
    "--restart": _restart,
    "--sdnotify": _ready,
    "--security-opt": _security,
    "--slice": _slice,
    "--user": _user,
    "--volume": _volumes,
}
# section -> flag -> what makes keys of it, where no key is the flag's own
_SPECIAL: dict[str, dict[str, Callable[[_Declaration, list[str]], bool]]] = {
    "Container": _CONTAINER,
    "Volume": {"--opt": _options},
    "Pod": {
        "--cgroup-parent": _slice,
        "--exit-policy": _exit_policy,
        "--network": _networks,
        "--slice": _slice,
        "--volume": _volumes,
    },
}
