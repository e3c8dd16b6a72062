"""`--change`, as docker import takes it."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError
from sysbox.image.changes import apply
from sysbox.image.model import ImageConfig

BASE = ImageConfig(env=("PATH=/bin",), cmd=("old",), labels={"a": "1"}, workdir="/w")


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ('CMD ["/bin/sh", "-c", "x y"]', "cmd", ("/bin/sh", "-c", "x y")),
        ("cmd echo  $HOME", "cmd", ("/bin/sh", "-c", "echo  $HOME")),
        ("CMD []", "cmd", ()),
        ('ENTRYPOINT ["/x"]', "entrypoint", ("/x",)),
        ("ENV A=b C='d e'", "env", ("PATH=/bin", "A=b", "C=d e")),
        ("ENV PATH /usr/bin:/x y", "env", ("PATH=/usr/bin:/x y",)),
        ("LABEL a=2 b=", "labels", {"a": "2", "b": ""}),
        ("EXPOSE 80 443/tcp 53/udp", "exposed_ports", ("443/tcp", "53/udp", "80/tcp")),
        ("VOLUME /a /b", "volumes", ("/a", "/b")),
        ('VOLUME ["/a b"]', "volumes", ("/a b",)),
        ("WORKDIR /x//y/", "workdir", "/x/y"),
        ("WORKDIR sub", "workdir", "/w/sub"),
        ("USER 1000:1000", "user", "1000:1000"),
        ("STOPSIGNAL SIGINT", "stop_signal", "SIGINT"),
        ("STOPSIGNAL 9", "stop_signal", "9"),
        ("STOPSIGNAL SIGRTMIN+3", "stop_signal", "SIGRTMIN+3"),
        ("STOPSIGNAL rtmin+3", "stop_signal", "rtmin+3"),
    ],
)
def test_applied(change: str, field: str, value: object) -> None:
    assert getattr(apply(BASE, [change]), field) == value


def test_in_order() -> None:
    final = apply(BASE, ["CMD a", 'ENTRYPOINT ["e"]', "WORKDIR a", "WORKDIR b"])
    assert final.cmd == ("/bin/sh", "-c", "a")
    assert final.workdir == "/w/a/b"
    assert apply(BASE, []) == BASE


@pytest.mark.parametrize(
    "change",
    [
        "", " ", "RUN x", "FROM scratch", "CMD", "CMD [1]", 'CMD ["a"', 'CMD {"a":1}x\n', "ENV", "ENV A",
        "ENV =b", "ENV A=b C", 'ENV A="b', "EXPOSE 0", "EXPOSE 65536", "EXPOSE x", "EXPOSE 80/icmp",
        "EXPOSE -1",
        "VOLUME rel", "USER a b", "STOPSIGNAL NOPE", "STOPSIGNAL 65", "STOPSIGNAL SIG_UNBLOCK",
        "STOPSIGNAL _SETMASK", "STOPSIGNAL \u0669", "STOPSIGNAL 0009", "STOPSIGNAL RTMIN+99",
        "HEALTHCHECK --retries=\u0663 CMD x", "HEALTHCHECK --interval=x CMD x", "LABEL x", "WORKDIR",
    ],
)  # fmt: skip
def test_refused(change: str) -> None:
    with pytest.raises(SpecError, match="invalid --change"):
        apply(BASE, [change])


def test_an_entry_point_resets_only_the_command_before() -> None:
    """Whichever comes first, as docker import and docker commit have it."""
    before = BASE.replace(cmd=("old",))
    assert apply(before, ['ENTRYPOINT ["e"]']).cmd == ()
    for changes in (['CMD ["c"]', 'ENTRYPOINT ["e"]'], ['ENTRYPOINT ["e"]', 'CMD ["c"]']):
        found = apply(before, changes)
        assert (found.entrypoint, found.cmd) == (("e",), ("c",))
