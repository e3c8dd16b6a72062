"""Types of the C extension `src/_layer.c`."""

def files(
    data: bytes | memoryview, directory: int, prefix: bytes, entries: int, size: int, /
) -> tuple[int, int, int]: ...
