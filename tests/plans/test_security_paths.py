"""S8: masked and read-only paths."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError
from sysbox.fs.rootfs import Mask, Protection, plan_operations
from sysbox.security import paths
from sysbox.spec import ContainerSpec, Mount, Security


def test_the_seeds_read_only_paths() -> None:
    _, read_only = paths.plan(Security())
    seed = {"/sys", "/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"}
    assert seed <= set(read_only)


def test_side_channels_are_masked() -> None:
    """The whole list, so that nothing is lost from it by mistake."""
    masked, _ = paths.plan(Security(), cpus="0,3-4")
    assert sorted(masked[:-3]) == [
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
        "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
        "/sys/devices/virtual/powercap", "/sys/firmware",
    ]  # fmt: skip
    assert masked[-3:] == tuple(
        f"/sys/devices/system/cpu/cpu{cpu}/thermal_throttle" for cpu in (0, 3, 4)
    )


@pytest.mark.parametrize("security", [Security(privileged=True), Security(unmask=("ALL",))])
def test_none_at_all(security: Security) -> None:
    assert paths.plan(security, cpus="0-3") == ((), ())


def test_unmask_one() -> None:
    masked, read_only = paths.plan(Security(unmask=("/proc/kcore", "/proc/sys/", "/sys/*")))
    assert "/proc/kcore" not in masked
    assert "/sys/firmware" not in masked
    assert "/sys/devices/virtual/powercap" in masked
    assert "/proc/keys" in masked
    assert "/proc/sys" not in read_only
    assert "/proc/sysrq-trigger" in read_only
    assert "/sys" in read_only


def test_a_directory_does_not_stand_for_what_is_below_it() -> None:
    """podman's rule, and the safe one."""
    masked, read_only = paths.plan(Security(unmask=("/sys", "/proc")))
    assert masked == paths.MASKED
    assert set(paths.READ_ONLY) - set(read_only) == {"/sys"}


def test_what_is_masked_on_request_is_masked_in_any_case() -> None:
    asked = ("/data", "/proc/keys")
    assert paths.plan(Security(mask=asked))[0] == (*paths.MASKED, "/data")
    for more in (
        {"unmask": ("ALL",)},
        {"unmask": ("/proc/keys", "/*/*", "/*")},
        {"privileged": True},
    ):
        assert set(asked) <= set(paths.plan(Security(mask=asked, **more))[0])  # type: ignore[arg-type]
    assert paths.plan(Security(mask=asked, privileged=True)) == (asked, ())


@pytest.mark.parametrize("pattern", ["proc", "/proc/../sys", "", "/proc\0", "/proc/[a"])
def test_bad_patterns(pattern: str) -> None:
    with pytest.raises(SpecError, match="unmask"):
        paths.plan(Security(unmask=(pattern,)))


def test_what_an_image_asks_for_takes_no_mask_away() -> None:
    def covered(mount: Mount) -> set[str]:
        operations = plan_operations(
            ContainerSpec(image="x", mounts=(mount,)),
            usr_bind=False,
            directory="/d",
            volumes={mount.target: "/v"},
            marks={},
            protect=Protection(
                masked=("/sys/firmware",), read_only=(), directories=(), nodes=(), links=()
            ),
        )
        return {one.target for one in operations if isinstance(one, Mask)}

    mount = Mount(kind="volume", target="/sys/firmware")
    assert covered(mount) == set()
    assert covered(mount.replace(from_image=True)) == {"/sys/firmware"}
