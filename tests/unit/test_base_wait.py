"""Waiting for file descriptors of any number."""

from __future__ import annotations

import os
import resource

from sysbox.base.wait import ready


def test_what_is_ready() -> None:
    reading, writing = os.pipe()
    try:
        assert ready([reading], seconds=0) == set()
        assert ready([reading], [writing]) == {writing}
        os.write(writing, b"x")
        assert ready([reading], [writing]) == {reading, writing}
        os.read(reading, 1)
        os.close(writing)
        writing = -1
        assert ready([reading]) == {reading}
        assert os.read(reading, 1) == b""
    finally:
        for fd in (reading, writing):
            if fd >= 0:
                os.close(fd)


def test_a_high_number() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4000), hard))
    reading, writing = os.pipe()
    high = os.dup2(writing, 3000)
    try:
        assert ready([reading], [high], seconds=0) == {high}
    finally:
        for fd in (reading, writing, high):
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
