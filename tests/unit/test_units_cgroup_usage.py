"""The files that tell what a cgroup uses, on texts and on trees that stand for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostfacts import facts

from sysbox.container.records import Usage
from sysbox.host import HostFacts
from sysbox.netns import counters
from sysbox.units.cgroup import usage
from sysbox.units.cgroup.files import events_file, report_files
from sysbox.units.cgroup.usage import DeviceUsage, Pressure, Reader

BLKIO = """\
8:16 Read 4096
8:16 Write 8192
8:16 Sync 12288
8:16 Async 0
8:16 Discard 0
8:16 Total 12288
254:0 Read 1
254:0 Write 2
254:0 Total 3
Total 12291
"""
SCOPE = "/a.slice/a-b.slice/docker-1.scope"


def fill(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def unified(root: Path, files: dict[str, str]) -> HostFacts:
    """A v2 tree."""
    fill(root, files)
    names = ("cpu", "memory", "io", "pids", "name=systemd")
    return facts("v2", dict.fromkeys(names, str(root)))


def test_io_stat() -> None:
    """A device without figures is none: `8:16` alone stands there where only a limit is set."""
    text = "8:0 rbytes=10 wbytes=20 rios=3 wios=4 dbytes=0 dios=0\n8:16 \n"
    assert usage.parse_io_stat(text) == (
        DeviceUsage(device="8:0", read_bytes=10, written_bytes=20, reads=3, writes=4),
    )
    assert usage.parse_io_stat("") == ()


def test_blkio() -> None:
    counts = "8:16 Read 1\n8:16 Write 2\nTotal 3\n"
    assert usage.parse_blkio(BLKIO, counts) == (
        DeviceUsage(device="8:16", read_bytes=4096, written_bytes=8192, reads=1, writes=2),
        DeviceUsage(device="254:0", read_bytes=1, written_bytes=2),
    )
    assert usage.parse_blkio("Total 0\n") == ()


def test_pressure() -> None:
    text = "some avg10=1.50 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.25 avg60=0 avg300=0 total=5\n"
    found = usage.parse_pressure("io", text)
    assert found == Pressure(resource="io", some=1.5, full=0.25, stalled_us=77)
    # the CPU has no `full` before Linux 5.13
    assert usage.parse_pressure("cpu", text.splitlines()[0]).full == 0


def test_v2(tmp_path: Path) -> None:
    """The limit is the smallest of all above, whatever the scope's own says."""
    host = unified(
        tmp_path,
        {
            f"{SCOPE}/cpu.stat": "usage_usec 7\nnr_periods 4\nnr_throttled 3\nthrottled_usec 9\n",
            f"{SCOPE}/memory.current": "5000\n",
            f"{SCOPE}/memory.stat": "anon 1000\ninactive_file 1500\n",
            f"{SCOPE}/memory.swap.current": "64\n",
            f"{SCOPE}/memory.max": "9000\n",
            "/a.slice/a-b.slice/memory.max": "max\n",
            "/a.slice/memory.max": "8000\n",
            f"{SCOPE}/pids.current": "2\n",
            f"{SCOPE}/pids.max": "max\n",
            "/a.slice/a-b.slice/pids.max": "20\n",
            "/a.slice/pids.max": "30\n",
            f"{SCOPE}/io.stat": "8:0 rbytes=10 wbytes=20 rios=3 wios=4\n",
            f"{SCOPE}/io.pressure": "some avg10=2.00 avg60=0 avg300=0 total=1\n",
        },
    )
    found = usage.Reader(host).read(SCOPE)
    assert (found.cpu_ns, found.periods, found.throttled_periods, found.throttled_ns) == (
        7000, 4, 3, 9000,
    )  # fmt: skip
    assert (found.memory, found.cache, found.working_set, found.swap) == (5000, 1500, 3500, 64)
    assert (found.memory_limit, found.limited_by) == (8000, "/a.slice")
    assert (found.pids, found.pids_limit) == (2, 20)
    assert (found.io.read_bytes, found.io.written_bytes, found.io.reads) == (10, 20, 3)
    assert [one.resource for one in found.pressure] == ["io"]
    brief = Reader(host).brief(SCOPE)
    assert (brief.working_set, brief.memory_limit, brief.pids) == (3500, 8000, 2)


def test_v1(tmp_path: Path) -> None:
    """Each controller in a tree of its own; what is beyond a cgroup's own limit counts there, too."""
    limit = "9223372036854771712"
    fill(
        tmp_path,
        {
            f"cpu{SCOPE}/cpu.stat": "nr_periods 4\nnr_throttled 3\nthrottled_time 9\n",
            f"memory{SCOPE}/memory.usage_in_bytes": "5000\n",
            f"memory{SCOPE}/memory.stat": (
                "inactive_file 1\ntotal_inactive_file 1500\ntotal_swap 64\n"
                "hierarchical_memory_limit 8000\n"
            ),
            f"memory{SCOPE}/memory.limit_in_bytes": limit,
            "memory/a.slice/a-b.slice/memory.limit_in_bytes": "8000\n",
            "memory/a.slice/memory.limit_in_bytes": limit,
            f"blkio{SCOPE}/blkio.throttle.io_service_bytes_recursive": BLKIO,
            f"blkio{SCOPE}/blkio.throttle.io_serviced_recursive": "8:16 Read 5\nTotal 5\n",
            f"pids{SCOPE}/pids.current": "2\n",
        },
    )
    controllers = {name: str(tmp_path / name) for name in ("cpu", "memory", "blkio", "pids")}
    found = usage.Reader(facts("v1", controllers)).read(SCOPE)
    assert found.throttled_ns == 9
    assert (found.memory, found.working_set, found.swap) == (5000, 3500, 64)
    assert (found.memory_limit, found.limited_by) == (8000, "/a.slice/a-b.slice")
    assert found.pids_limit == usage.UNKNOWN
    assert (found.io.read_bytes, found.io.written_bytes, found.io.reads) == (4097, 8194, 5)
    assert Reader(facts("v1", controllers)).brief(SCOPE).memory_limit == 8000


def test_without_limits_the_host_is_one(tmp_path: Path) -> None:
    host = unified(tmp_path, {f"{SCOPE}/memory.max": "max\n", f"{SCOPE}/memory.current": "1\n"})
    found = usage.Reader(host).read(SCOPE)
    assert (found.memory_limit, found.limited_by) == (usage.host_memory(), "")
    assert found.memory_limit > 1 << 20


def test_what_is_gone_is_unknown(tmp_path: Path) -> None:
    found = usage.Reader(unified(tmp_path, {"/x": ""})).read("/gone.scope")
    assert (found.cpu_ns, found.working_set, found.pids, found.io.read_bytes) == (-1, -1, -1, -1)
    assert found.devices is None
    assert usage.read_usage("/gone.scope", unified(tmp_path, {})) == Usage()


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (
            {"memory.peak": "99\n", "cpu.stat": "usage_usec 3\nuser_usec 1\n", "io.stat": ""},
            Usage(cpu_ns=3000, memory_peak=99, read_bytes=0, written_bytes=0),
        ),
        (
            {
                "memory.max_usage_in_bytes": "99\n",
                "cpuacct.usage": "3\n",
                "blkio.throttle.io_service_bytes_recursive": BLKIO,
            },
            Usage(cpu_ns=3, memory_peak=99, read_bytes=4097, written_bytes=8194),
        ),
        (
            {
                "blkio.throttle.io_service_bytes_recursive": "Total 0\n",
                "blkio.bfq.io_service_bytes_recursive": BLKIO,
            },
            Usage(read_bytes=4097, written_bytes=8194),
        ),
        ({}, Usage()),
    ],
)
def test_reports(texts: dict[str, str], expected: Usage) -> None:
    """What a run has used; what nobody could read any more is not known, and never 0."""
    assert usage.parse_usage(texts) == expected


def test_the_files_of_a_report(tmp_path: Path) -> None:
    host = unified(tmp_path, {f"{SCOPE}/memory.peak": "5\n", f"{SCOPE}/io.stat": ""})
    files = report_files(SCOPE, host)
    assert f"{tmp_path}{SCOPE}/memory.peak" in files
    assert events_file(SCOPE, host) == f"{tmp_path}{SCOPE}/cgroup.events"
    assert usage.read_usage(SCOPE, host) == Usage(memory_peak=5, read_bytes=0, written_bytes=0)


def test_interfaces() -> None:
    text = (
        "Inter-|   Receive     |  Transmit\n face |bytes    packets errs\n"
        "    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"
        "  eth0:100 2 3 4 5 6 7 8 900 10 11 12 13 14 15 16\n"
    )
    assert counters.parse(text) == {"lo": (1, 9), "eth0": (100, 900)}
    assert "lo" in counters.counters()
    assert counters.counters("0") == {}
