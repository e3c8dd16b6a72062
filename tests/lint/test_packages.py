"""Each of the packages we build on is imported by one file, inside the function that needs it."""

from __future__ import annotations

import pytest
import source

ONE_FILE = (
    "cryptography", "pystemd", "dbus_next", "dnslib", "pyroute2", "iptc", "pyseccomp", "urllib3",
    "backports", "isal",
)  # fmt: skip
COLD_TIER = "sysbox.cli"  # click is the cold command line's own language
VERBS = "sysbox.cli.commands."
# package -> a verb of which it does a part
SERVES = {
    "backports": "cp",
    "click": "help_",
    "cryptography": "trust",
    "dbus_next": "events",
    "dnslib": "doctor",
    "iptc": "run",
    "isal": "import_",
    "pyroute2": "doctor",
    "pystemd": "info",
    "urllib3": "login",
}
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


@pytest.mark.parametrize("package", SERVES)
def test_a_verb_reaches_it(package: str) -> None:
    """From the module of a verb on, by what each module and its functions import."""
    verbs = {name for name in MODULES if name.startswith(VERBS) and package in needs(name)}
    assert VERBS + SERVES[package] in verbs, f"{package} serves {sorted(verbs) or 'no verb'}"


def needs(start: str) -> set[str]:
    """What is not ours and is imported on the way of a verb; not on that of others."""
    outside: set[str] = set()
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            imported = source.imports(MODULES[name])
            outside |= source.outside(imported)
            own = source.own(imported) & set(MODULES)
            waiting += [other for other in own if not other.startswith(VERBS)]
    return outside


def test_nothing_else_is_depended_on() -> None:
    allowed = {*ONE_FILE, "click", "compression"}  # the last: of the standard library since 3.14
    for name, path in MODULES.items():
        extra = source.third_party(source.imports(path)) - allowed
        assert not extra, (
            f"{name} imports {', '.join(extra)}, which pyproject.toml does not ask for"
        )
