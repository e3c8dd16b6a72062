"""Who declares a container, a pod or a network that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysbox.units import declares

_RUN = "[Service]\nExecStart=/usr/bin/sysbox _unit %n {} x\nExecStopPost=/usr/bin/sysbox _unit %n\n"
_FILES = {
    "web.service": _RUN.format("--name=systemd-%N"),
    "named.service": _RUN.format("--name=db --name=database"),
    "a@.service": _RUN.format("--name=systemd-%p_%i"),
    "b@.service": _RUN.format("--name=site-%i-x"),
    "shop-pod.service": "[Service]\nExecStart=/usr/bin/sysbox _pod %n --exit-policy=stop systemd-shop\n",
    "back-network.service": '[Service]\nExecStart="/usr/bin/sysbox" network create --ignore back\n',
    "other.service": "[Service]\nExecStart=/usr/bin/run --name=other\n",
}


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("systemd-web", "web.service"), ("database", "named.service"), ("db", ""), ("other", ""),
        ("systemd-a_7", "a@7.service"), ("systemd-a_", ""), ("site-de-x", "b@de.service"), ("site--y", ""),
        ("systemd-shop", ""),
    ],
    ids="default last first others instance no-instance between suffix pod".split(),
)  # fmt: skip
def test_the_service_of_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, unit: str
) -> None:
    for file, text in _FILES.items():
        (tmp_path / file).write_text(text)
    monkeypatch.setattr(declares, "PLACES", (str(tmp_path), "/nowhere"))
    said = f"it is declared: `systemctl start {unit}` makes it" if unit else "usual"
    assert declares.hint(name, "usual") == said
    pod = declares.hint("systemd-shop", "usual", "_pod")
    assert pod == "it is declared: `systemctl start shop-pod.service` makes it"
    network = declares.hint("back", "usual", "network create", "restart")
    assert network == "it is declared: `systemctl restart back-network.service` makes it"
    assert declares.hint("back", "usual") == "usual"
