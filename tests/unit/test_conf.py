"""sysbox.conf: which files count, what each key may be, and what is said of what is wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from forked import in_child, needs_root

from sysbox.base import paths
from sysbox.base.errors import SysboxError
from sysbox.cli.doctor import conf as doctor
from sysbox.cli.doctor.check import MISSING, YES
from sysbox.cli.output import shortened
from sysbox.conf import files, settings, table
from sysbox.conf.values import Settings
from sysbox.embedded import caller_root
from sysbox.spec import Bridge, ContainerSpec, Limits, Logging, Namespaces


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The two directories, share and etc, which are not there yet."""
    monkeypatch.setattr(paths, "CONFIGURATION", (str(tmp_path / "share"), str(tmp_path / "etc")))
    return tmp_path


def put(tree: Path, name: str, text: str) -> Path:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def pids(number: object) -> str:
    return f"[Container]\nPidsLimit={number}\n"


def test_without_a_file_nothing_is_imported(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sysbox.conf.files")
    assert settings.settings() == Settings()
    (tree / "etc").mkdir()
    assert settings.settings() == Settings()
    assert "sysbox.conf.files" not in sys.modules


def test_a_file_that_has_every_key(tree: Path) -> None:
    text = (
        "[Network]\nBridge = br-1.x\nSubnet=10.5.0.0/24\nFirewall=iptables-nft\nPorts=ask\n[Log]\n"
        "Driver=json-file\nRateLimit=0\nRateBurst=7\n" + pids(500) + "UserNS=auto\n"
        "[Build]\nContextFiles=5\nFetchSize=2k\n[Units]\nPodmanFiles=sysbox\n"
    )
    path = put(tree, "etc/sysbox.conf", text)
    assert settings.settings() == Settings(
        bridge="br-1.x", subnet="10.5.0.0/24", log_driver="json-file", rate_limit=0, rate_burst=7,
        pids_limit=500, userns="auto", firewall="iptables-nft", ports="ask", context_files=5,
        fetch_size=2048, podman_files="sysbox",
    )  # fmt: skip
    loaded = files.load()
    assert loaded.files == (str(path),)
    assert set(loaded.texts) == {key.title for key in table.KEYS}
    assert {key.field for key in table.KEYS} == set(Settings._fields)
    assert table.BY_SECTION["Container"]["UserNS"].default == Settings().userns


def test_an_empty_value_brings_the_default_back(tree: Path) -> None:
    put(tree, "etc/sysbox.conf", pids(5))
    put(tree, "etc/sysbox.conf.d/1.conf", pids(""))
    assert files.load().settings == Settings()
    assert files.load().texts == {}


def test_the_order_of_the_files(tree: Path) -> None:
    """As conf_files_list() of systemd: main files first, drop-ins by name, the higher directory's of two."""
    put(tree, "share/sysbox.conf", pids(1) + "[Log]\nDriver=none\n")
    share = put(tree, "share/sysbox.conf.d/50-a.conf", pids(2))
    assert [one.partition(f"{tree}/")[2] for one in files.find_files()] == [
        "share/sysbox.conf",
        "share/sysbox.conf.d/50-a.conf",
    ]
    put(tree, "etc/sysbox.conf", pids(3))
    put(tree, "etc/sysbox.conf.d/40-b.conf", pids(4))
    put(tree, "etc/sysbox.conf.d/.hidden.conf", "nonsense")
    put(tree, "etc/sysbox.conf.d/README", "nonsense")
    # the drop-in of /usr comes after, whatever its directory; its main file is not read at all
    assert files.load().settings == Settings(pids_limit=2)
    put(tree, "etc/sysbox.conf.d/50-a.conf", pids(5))
    assert files.load().settings == Settings(pids_limit=5)
    assert str(share) not in files.load().files


@pytest.mark.parametrize("empty", [True, False])
def test_masking(tree: Path, *, empty: bool) -> None:
    """An empty file, or a link to /dev/null, says nothing in the place of another."""
    for name in ("sysbox.conf", "sysbox.conf.d/x.conf"):
        put(tree, f"share/{name}", pids(1))
        mask = tree / "etc" / name
        mask.parent.mkdir(exist_ok=True)
        if empty:
            mask.touch()
        else:
            mask.symlink_to("/dev/null")
    assert files.load() == files.Loaded(settings=Settings(), files=(), texts={})


def test_a_link_to_another_file_is_followed(tree: Path) -> None:
    put(tree, "elsewhere", pids(9))
    (tree / "etc").mkdir()
    (tree / "etc/sysbox.conf").symlink_to(tree / "elsewhere")
    assert settings.settings().pids_limit == 9


def test_on_an_embedded_host_those_of_the_caller_count(tree: Path) -> None:
    """The copy of /etc there does not get what the machine's gets later."""
    needs_root()
    put(tree, "etc/sysbox.conf.d/a.conf", pids(9))
    put(tree, f"other{tree}/etc/sysbox.conf", pids(1))

    def leave() -> None:
        caller_root.keep("/")
        os.chroot(tree / "other")
        assert settings.settings().pids_limit == 9

    in_child(leave)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[Netwrk]\nBridge=a0\n", ":1: [Netwrk]: there is no such section", "did you mean Network?"),
        ("[Log]\n[Contaner]\n", ":2: [Contaner]: there is no such section", "did you mean Container?"),
        ("[Network]\n\nBrigde=a0\n", ":3: Brigde=: [Network] has no such key", "did you mean Bridge?"),
        ("[Network]\nDriver=none\n", ":2: Driver=: [Network] has no such key", "it belongs to [Log]"),
        ("[Network]\nBridge=a/b\n", ":2: Bridge a/b: not the name of a link", "as in br0"),
        ("[Network]\nBridge=a123456789012345\n", ":2: Bridge a123456789012345: longer than 15", ""),
        ("[Network]\nSubnet=10.0.0.1/8\n", ":2: Subnet 10.0.0.1/8: has bits set beyond its mask", "10.90"),
        ("[Network]\nSubnet=x/8\n", ":2: Subnet x/8: 'x' is not an IP address", ""),
        ("[Network]\nSubnet=fd00::/64\n", ":2: Subnet fd00::/64: not a subnet of IPv4", "10.90"),
        ("[Network]\nSubnet=10.0.0.0/31\n", ":2: Subnet 10.0.0.0/31: the mask must be /8 to /30", ""),
        ("[Network]\nSubnet=10.5.0.0/016\n", ":2: Subnet 10.5.0.0/016: is written 10.5.0.0/16", ""),
        ("[Network]\nSubnet=127.0.0.0/16\n", ":2: Subnet 127.0.0.0/16: overlaps 127.0.0.0/8", ""),
        ("[Network]\nSubnet=0.0.0.0/8\n", ":2: Subnet 0.0.0.0/8: overlaps 0.0.0.0/8, which no link", ""),
        ("[Network]\nSubnet=224.0.0.0/16\n", ":2: Subnet 224.0.0.0/16: overlaps 224.0.0.0/4", ""),
        ("[Network]\nPorts=closed\n", ":2: Ports closed: neither", "open or ask"),
        ("[Log]\nDriver=journal\n", ":2: Driver journal: not a log driver", "did you mean journald?"),
        ("[Log]\nRateLimit=-1\n", ":2: RateLimit -1: out of range", "from 0"),
        ("[Log]\nRateBurst=0\n", ":2: RateBurst 0: out of range", "from 1"),
        (pids("9" * 5000), f":2: PidsLimit {'9' * 5000}: out of range", "to 4194304"),
        (pids("many"), ":2: PidsLimit many: not a whole number", ""),
        ("[Container]\nUserNS=yes\n", ":2: UserNS yes: unknown mode", "auto or host"),
        ("PidsLimit=1\n", ":1: the line stands before the first section", "[Section]"),
        ("[Log]\nDriver\n", ":2: the line has no '='", "Key=value"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_clear_line(tree: Path, text: str, message: str, hint: str) -> None:
    path = put(tree, "etc/sysbox.conf", text)
    with pytest.raises(SysboxError) as caught:
        settings.settings()
    assert caught.value.message.startswith(f"{path}{message}")
    assert hint in caught.value.hint
    assert caught.value.status == 125
    (row,), settled = doctor.configuration()
    assert (row.state, row.detail, settled) == (MISSING, shortened(caught.value.message), None)
    assert "sysbox.conf(5)" in row.advice


def test_what_is_no_file(tree: Path) -> None:
    (tree / "etc/sysbox.conf").mkdir(parents=True)
    with pytest.raises(SysboxError, match="not a regular file"):
        settings.settings()
    (tree / "etc/sysbox.conf").rmdir()
    os.mkfifo(tree / "etc/sysbox.conf")
    with pytest.raises(SysboxError, match="not a regular file"):
        settings.settings()
    (tree / "etc/sysbox.conf").unlink()


@pytest.mark.parametrize("name", ["sysbox.conf", "sysbox.conf.d", "sysbox.conf.d/a.conf"])
def test_a_link_that_leads_nowhere(tree: Path, name: str) -> None:
    path = tree / "etc" / name
    path.parent.mkdir(parents=True)
    path.symlink_to("nowhere")
    with pytest.raises(SysboxError) as caught:
        settings.settings()
    assert caught.value.message == f"{path}: a link to a file that does not exist"
    assert "remove the link" in caught.value.hint


def test_the_doctor_shows_what_is_set(tree: Path) -> None:
    (row,), _ = doctor.configuration()
    assert (row.state, row.detail) == (YES, "none: each key has its default")
    path = put(tree, "etc/sysbox.conf", pids(5))
    (first, second), chosen = doctor.configuration()
    assert chosen == Settings(pids_limit=5)
    assert (first.name, first.detail) == ("sysbox.conf", str(path))
    assert (second.name, second.state, second.detail) == ("Container.PidsLimit", YES, "5")


ASKED = ContainerSpec(image="x")
CHOSEN = Settings(
    bridge="b0", subnet="10.5.0.0/24", rate_limit=3, rate_burst=4, pids_limit=5
)  # its log driver is chosen where options are parsed


def test_defaults_are_written_into_what_was_asked() -> None:
    assert settings.with_defaults(ASKED, Settings()) == ASKED
    made = settings.with_defaults(ASKED, CHOSEN)
    assert made == ASKED.replace(
        logging=Logging(rate_limit=3, rate_burst=4),
        limits=Limits(pids=5),
        bridge=Bridge(name="b0", subnet="10.5.0.0/24"),
    )
    # they are in the record, and hold there whatever the file says later
    assert ContainerSpec.from_data(made.to_data()) == made
    assert settings.with_defaults(made, CHOSEN.replace(rate_limit=9, pids_limit=9)).limits.pids == 5


def test_what_was_asked_goes_before() -> None:
    asked = ASKED.replace(
        logging=Logging(rate_limit=0, rate_burst=1),
        limits=Limits(pids=-1),
        namespaces=Namespaces(network="none"),
    )
    assert settings.with_defaults(asked, CHOSEN) == asked
    other = ASKED.replace(logging=Logging(driver="json-file"), limits=Limits(pids=-1))
    assert settings.with_defaults(other, CHOSEN).logging == other.logging
