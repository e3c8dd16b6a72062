"""The options of volumes: what each means, and what is refused with which word."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError, Unsupported
from sysbox.fs import volume_options


def test_a_directory_of_the_host() -> None:
    for texts in (
        ("type=none", "device=/srv", "o=bind,ro,nodev"),
        ("type=bind", "device=/srv", "o=ro,nodev"),
        ("device=/srv", "o=ro,bind,nodev"),
    ):
        found = volume_options.parse(texts)
        assert (found.kind, found.device, found.words) == ("bind", "/srv", ("ro", "nodev"))


def test_a_tmpfs_and_an_owner() -> None:
    found = volume_options.parse(("type=tmpfs", "device=tmpfs", "o=size=1m,uid=7", "size=2m"))
    assert (found.kind, found.words) == ("tmpfs", ("size=1m", "uid=7", "size=2m"))
    found = volume_options.parse(("o=uid=7", "gid=8", "nocopy"))
    assert (found.kind, found.uid, found.gid, found.copy) == ("", 7, 8, False)


@pytest.mark.parametrize(
    ("texts", "error", "said"),
    [
        (("sort=none",), SpecError, "not an option of a volume"),
        (("o=size=1g",), Unsupported, "needs disk quotas"),
        (("size=1g",), Unsupported, "needs disk quotas"),
        (("inodes=5",), Unsupported, "needs disk quotas"),
        (("type=nfs", "device=:/x", "o=addr=h"), Unsupported, "network file systems are not supported"),
        (("type=ext4", "device=/dev/sda1"), Unsupported, "type=ext4: only bind and tmpfs"),
        (("device=/dev/sda1",), Unsupported, "device=/dev/sda1: only bind and tmpfs"),
        (("type=none", "o=bind"), SpecError, "not a directory to bind"),
        (("type=bind", "device=srv"), SpecError, "an absolute path"),
        (("type=bind", "device=/srv", "o=uid=7"), Unsupported, "is a directory of the host's"),
        (("type=bind", "device=/srv", "o=nonsense"), SpecError, "unknown option 'nonsense'"),
        (("type=tmpfs", "o=nonsense=1"), SpecError, "unknown option"),
        (("o=uid=x",), SpecError, "not a whole number"),
        (("o=uid=4294967295",), SpecError, "4294967295"),
        (("o=bogus",), SpecError, "not an option of a plain volume"),
    ],
    ids=[
        "key", "o-size", "size", "inodes", "nfs", "ext4", "device", "no-device", "relative", "bind-owner",
        "bind-word", "tmpfs-word", "owner", "last-id", "word",
    ],
)  # fmt: skip
def test_what_is_refused(texts: tuple[str, ...], error: type[Exception], said: str) -> None:
    with pytest.raises(error) as caught:
        volume_options.parse(texts)
    assert said in f"{caught.value} {getattr(caught.value, 'hint', '')}"
