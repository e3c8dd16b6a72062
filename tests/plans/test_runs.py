"""Whole plans, from data files: a command line, host facts, and lines that `--dry-run` must have, or not.

Each file in runs/ has its purpose in the first line, behind #. Then lines of these kinds:

    $ run ...            the command line; the image is always `box`
    host: v2 cpus=0-3    the layout of the cgroups (v1 is the default), and what else is known of the host;
                         with `selinux=yes` the container's leased level is s0:c1,c2
    image: user=app cmd=/bin/server env=A=1    of the image's configuration; by default it has cmd=/bin/sh;
                         `usr_bind` is the flag of the image `host`
    around: hostname=x volume:/data=/v join:pid=/proc/7/ns/pid no_time=why    what is found on the host;
                         `landlock=7` is the version of its Landlock, none by default;
                         `within=1000`: sysbox is in a user namespace with as many groups
    + line               a line of the plan, without its indentation
    - beginning          no line of the plan begins so
    ! text               the error that is raised in place of a plan

Of a line, ID is the container's id and LIBEXEC where sysbox's own programs are.

A block ends with an empty line; the next one begins with another command line. Lines are in the plan's order.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostfacts import facts

from sysbox.base.errors import SysboxError
from sysbox.base.paths import LIBEXEC
from sysbox.cli.parse import hot
from sysbox.cli.request import spec as request
from sysbox.cli.table.verbs import VERBS
from sysbox.container import systemd_mode
from sysbox.container.records import Record
from sysbox.image.model import Image, ImageConfig
from sysbox.image.resolved import resolve
from sysbox.linux.userns import IdMap
from sysbox.plan import Surroundings, make_plan
from sysbox.security import labels

ID = "0123456789abcdef" * 4
EVERYTHING = (1 << 41) - 1
RUNS = Path(__file__).parent / "runs"


class Case:
    """One block of a file."""

    def __init__(self, lines: list[str]) -> None:
        self.words: list[str] = []
        self.host: list[str] = []
        self.image = ["cmd=/bin/sh"]
        self.around: list[str] = []
        self.wanted: list[str] = []
        self.unwanted: list[str] = []
        self.error = ""
        for line in lines:
            kind, _, rest = line.partition(" ")
            match kind:
                case "$":
                    self.words = shlex.split(rest)
                case "host:":
                    self.host = shlex.split(rest)
                case "image:":
                    self.image = shlex.split(rest)
                case "around:":
                    self.around = shlex.split(rest)
                case "+":
                    self.wanted.append(rest)
                case "-":
                    self.unwanted.append(rest)
                case "!":
                    self.error = rest
                case _:
                    raise ValueError(f"not a line of a .run file: {line}")
        if not self.words or not (self.wanted or self.unwanted or self.error):
            raise ValueError(f"a block needs a command line, and what is expected: {lines}")

    def plan(self) -> list[str]:
        """The lines of the plan. Raises what planning raises."""
        values = hot.parse(VERBS["run"], self.words[1:])
        spec = request.build(values, detach=values.detach)
        image = Image(
            id="sha256:" + "a" * 64, manifest="", config=self._config(), usr_bind="usr_bind" in self.image
        )  # fmt: skip
        resolved = resolve(spec, image)
        argv = resolved.entrypoint + resolved.command
        init = labels.INIT_TYPE if systemd_mode.applies(spec, argv) else ""
        found = labels.decide(spec, labels.Contexts(), "s0:c1,c2", init_type=init)
        record = Record(
            id=ID,
            name=spec.name or "brave_otter",
            created_ns=1,
            spec=spec,
            image_id="sha256:" + "a" * 64,
            image_name=spec.image,
            argv=argv,
            process_label=found.process,
            mount_label=found.mount,
            resolved=resolved.replace(layers=("l1", "l2")),
        )
        host = facts(next((one for one in self.host if "=" not in one), "v1"))
        host = host.replace(**pairs(self.host))
        plan = make_plan(record, record.resolved or resolved, self._surroundings(), host)
        text = plan.describe().replace(ID, "ID").replace(LIBEXEC, "LIBEXEC")
        return [line.strip() for line in text.splitlines()]

    def _config(self) -> ImageConfig:
        given = pairs(self.image)
        many = {
            name: tuple(given.pop(name).split(","))
            for name in ("entrypoint", "cmd", "env")
            if name in given
        }
        return ImageConfig(**given, **many)

    def _surroundings(self) -> Surroundings:
        given = pairs(self.around)

        def of(kind: str) -> dict[str, str]:
            return {
                name.partition(":")[2]: value
                for name, value in given.items()
                if name.startswith(kind)
            }

        return Surroundings(
            hostname=given.get("hostname", ID[:12]),
            volumes=of("volume:"),
            marks=of("mark:"),
            joins=of("join:"),
            landlock=int(given.get("landlock", "0")),
            no_time=given.get("no_time", ""),
            gids=tuple(
                IdMap(inside=0, outside=0, count=int(n)) for n in (given.get("within"),) if n
            ),
            capabilities=EVERYTHING,
        )


def pairs(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if "=" in word)


def cases() -> Iterator[object]:
    for file in sorted(RUNS.glob("*.run")):
        blocks = file.read_text(encoding="utf-8").split("\n\n")
        assert blocks[0].startswith("# "), f"{file.name} says in its first line what it is for"
        for number, block in enumerate(blocks, 1):
            lines = [line for line in block.splitlines() if line and not line.startswith("#")]
            if lines:
                yield pytest.param(Case(lines), id=f"{file.stem}-{number}")


@pytest.mark.parametrize("case", [*cases()])
def test_a_run(case: Case) -> None:
    if case.error:
        with pytest.raises(SysboxError) as raised:
            case.plan()
        assert case.error in raised.value.message
        return
    lines = case.plan()
    at = 0
    for wanted in case.wanted:
        assert wanted in lines, f"not in the plan: {wanted}\n" + "\n".join(lines)
        assert lines.index(wanted) >= at, f"not in this order: {wanted}"
        at = lines.index(wanted)
    for unwanted in case.unwanted:
        assert not [line for line in lines if line.startswith(unwanted)]
