"""An image's VOLUME is not its user's choice: it takes no mask away, and brings nothing of the kernel's."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import lane
import pytest
from lane import SYSBOX, Sysbox, run_sysbox

from sysbox.fs import volumes

NAME = "hostile-volume:test"
VOLUME = "test-hostile"


@pytest.fixture
def asking(sysbox: Sysbox) -> Iterator[Callable[..., str]]:
    """`asking(VOLUME, link=(NAME, TEXT))` makes an image that asks for a volume there."""

    def make(volume: str, link: tuple[str, str] = ("unused", "x")) -> str:
        buffer = io.BytesIO(lane.rootfs(Path("/bin/busybox")))
        with tarfile.open(fileobj=buffer, mode="a") as archive:
            entry = tarfile.TarInfo(link[0])
            entry.type, entry.linkname = tarfile.SYMTYPE, link[1]
            archive.addfile(entry)
        words = [SYSBOX, "import", "--change", f'VOLUME ["{volume}"]', "-", NAME]
        subprocess.run(words, input=buffer.getvalue(), check=True, capture_output=True)
        return NAME

    yield make
    run_sysbox("rmi", "-f", NAME)


@pytest.mark.parametrize(
    "volume",
    ["/", "/proc", "/proc/sys", "/sys/firmware", "/dev/shm", "/a/../sys/fs/cgroup", "//dev"],
)
def test_where_an_image_may_have_none(
    sysbox: Sysbox, asking: Callable[..., str], volume: str
) -> None:
    done = sysbox("run", "--rm", asking(volume), "true")
    assert done.returncode == 125
    assert f"the image's VOLUME '{volume}' is not a place for a volume" in done.stderr


def test_but_its_user_may(sysbox: Sysbox, asking: Callable[..., str], tmp_path: Path) -> None:
    """A mount of his own takes the place of the image's."""
    image = asking("/dev/shm")
    flags = ("--rm", "--network", "none", "-v", f"{tmp_path}:/dev/shm")
    sysbox("run", *flags, image, "touch", "/dev/shm/made", check=True)
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("path", ["/sys/firmware", "/proc", "/dev"])
def test_a_link_brings_nothing_of_the_kernels(
    sysbox: Sysbox, asking: Callable[..., str], path: str
) -> None:
    image = asking("/data", link=("data", path))
    sysbox("volume", "create", VOLUME, check=True)
    try:
        for flags in ((), ("-v", f"{VOLUME}:/data")):
            # whether such a place is refused is another test's
            sysbox("run", "--rm", "--network", "none", *flags, image, "true")
        assert list(Path(volumes.directory(VOLUME)).iterdir()) == []
    finally:
        sysbox("volume", "rm", VOLUME, check=True)


@pytest.mark.parametrize("target", ["/proc", "/sys", "/proc/", "/sys/../proc"])
@pytest.mark.parametrize("flag", ["-v", "--tmpfs", "--mount"])
def test_the_users_own_over_all_of_proc_or_sys(
    sysbox: Sysbox, image: str, tmp_path: Path, flag: str, target: str
) -> None:
    words = {
        "-v": f"{tmp_path}:{target}",
        "--tmpfs": target,
        "--mount": f"type=bind,src={tmp_path},dst={target}",
    }
    done = sysbox("run", "--rm", flag, words[flag], image, "true")
    assert done.returncode == 125
    assert "cannot be mounted over" in done.stderr


def test_below_them_is_the_users_to_say(sysbox: Sysbox, image: str, tmp_path: Path) -> None:
    flags = [("-v", f"{tmp_path}:{one}") for one in ("/sys/fs/cgroup", "/dev/shm", "/dev/mine")]
    words = [word for pair in flags for word in pair]
    sysbox("run", "--rm", "--network", "none", *words, image, "touch", "/dev/mine/made", check=True)
    assert (tmp_path / "made").exists()
