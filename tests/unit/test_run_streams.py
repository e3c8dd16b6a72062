"""The standard streams of a container, as its first process takes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from forked import in_child

from sysbox.linux.namespace import CLONE_NEWUSER
from sysbox.run.streams import take_streams

OTHERS = 4711  # an id that the container does not have


@pytest.mark.parametrize("made_here", [False, True], ids=["callers", "own"])
def test_a_pipe_that_has_been_given_to_another_container(made_here: bool) -> None:
    """`make -j` gives all its programs one pipe: each container writes to it, whoever owns it."""
    reader, writer = os.pipe()

    def take() -> str:
        Path("/proc/self/uid_map").write_text("0 0 1", encoding="ascii")
        null = os.open("/dev/null", os.O_RDWR)
        try:
            take_streams((-1, writer, -1), null, (writer,) if made_here else (), 0, tty=False)
        except PermissionError:
            return "refused"
        os.write(1, b"written")
        return "taken"

    try:
        os.fchown(writer, OTHERS, -1)
        # a pipe of sysbox's own has one owner
        assert in_child(take, CLONE_NEWUSER) == ("refused" if made_here else "taken")
        if not made_here:
            assert os.read(reader, 100) == b"written"
    finally:
        os.close(reader)
        os.close(writer)
