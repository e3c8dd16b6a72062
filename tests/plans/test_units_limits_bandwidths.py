"""What systemd reads back of the limits for both directions of a disk."""

from __future__ import annotations

import pytest

from sysbox.units.limits.bandwidths import READ, WRITE, without_resets


def unit(*lines: str) -> str:
    return "\n".join(("# a comment", "[Scope]", "Slice=system.slice", *lines, ""))


FRAGMENT = unit(f"{READ}=", f"{READ}=/dev/a 2", f"{WRITE}=", f"{WRITE}=/dev/a 1")


CLEAN = unit(f"{READ}=/dev/a 2", f"{WRITE}=/dev/a 1")


def test_both_directions_at_the_start() -> None:
    """The empty lines go, and nothing else."""
    assert without_resets(FRAGMENT, ()) == (CLEAN,)
    assert without_resets(CLEAN, ()) == (CLEAN,)


@pytest.mark.parametrize(
    ("drop_in", "kept", "left"),
    [
        # another rate, another device, none: what a drop-in says of a key is all of it
        ((f"{READ}=", f"{READ}=/dev/a 3"), (f"{READ}=/dev/a 3",), (f"{WRITE}=/dev/a 1",)),
        ((f"{READ}=", f"{READ}=/dev/b 3"), (f"{READ}=/dev/b 3",), (f"{WRITE}=/dev/a 1",)),
        ((f"{READ}=",), (), (f"{WRITE}=/dev/a 1",)),
        ((f"{WRITE}=", f"{WRITE}=/dev/a 5"), (f"{WRITE}=/dev/a 5",), (f"{READ}=/dev/a 2",)),
    ],
)
def test_one_direction_changed_since(
    drop_in: tuple[str, ...], kept: tuple[str, ...], left: tuple[str, ...]
) -> None:
    assert without_resets(FRAGMENT, (unit(*drop_in),)) == (unit(*left), unit(*kept))


def test_both_changed_since() -> None:
    """The second file of the two begins with an empty line as well."""
    files = (unit(f"{READ}=", f"{READ}=/dev/a 7"), unit(f"{WRITE}=", f"{WRITE}=/dev/a 8"))
    wanted = (unit(), unit(f"{READ}=/dev/a 7"), unit(f"{WRITE}=/dev/a 8"))
    assert without_resets(FRAGMENT, files) == wanted
    assert without_resets("", files) == ("", *wanted[1:])


@pytest.mark.parametrize(
    "fragment",
    [
        unit(f"{READ}=", f"{READ}=/dev/a 2"),
        unit("BlockIOWeight=500"),
        "",
    ],
)
def test_what_stays_as_it_is(fragment: str) -> None:
    assert without_resets(fragment, ("", "")) == (fragment, "", "")
