"""Each of the packages we build on is imported by one file, inside the function that needs it."""

from __future__ import annotations

import pytest
import source

ONE_FILE = ("pystemd", "dbus_next", "pyroute2", "iptc", "pyseccomp")
COLD_TIER = "sysbox.cli"  # click is the cold command line's own language
MODULES = source.modules()


@pytest.mark.parametrize("package", ONE_FILE)
def test_one_file_imports_it(package: str) -> None:
    users = [
        name for name, path in MODULES.items() if package in source.outside(source.imports(path))
    ]
    assert len(users) == 1, f"{package} is imported by {users or 'nothing'}"
    path = MODULES[users[0]]
    assert package not in source.outside(source.imports(path, top_level_only=True)), (
        f"{users[0]} imports {package} at its top: each verb that touches the module would pay for it"
    )


def test_click_stays_in_the_command_line() -> None:
    users = {
        name for name, path in MODULES.items() if "click" in source.outside(source.imports(path))
    }
    assert users
    assert all(name.startswith(COLD_TIER) for name in users), users


def test_nothing_else_is_depended_on() -> None:
    allowed = {*ONE_FILE, "click"}
    for name, path in MODULES.items():
        extra = source.third_party(source.imports(path)) - allowed
        assert not extra, (
            f"{name} imports {', '.join(extra)}, which pyproject.toml does not ask for"
        )
