"""A start that fails says why to whoever asked for it, however it fails, and its service has failed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from containers import eventually, popen, systemctl
from lane import Sysbox
from test_gc import NAME, nothing_more
from test_gc import supervisor as supervisor

# what is said where nobody knows more
POOR = re.compile(r"without a word|has ended|was stopped|before it could say")
# its first process finds that out while systemd makes the scope, and may have ended before it is moved there:
# then systemd does not see the scope end, and to undo the start takes a stop, of the service too
EARLY = ("--network", "none", "-w", "/etc/passwd")


def test_the_error_and_not_the_stop_that_follows_from_it(
    sysbox: Sysbox, image: str, supervisor: Path
) -> None:
    """One call of the supervisor fails, once the scope is there and before its command may run."""
    for call, number in (("sendmsg", 1), ("sendmsg", 2), ("write", 5), ("eventfd2", 1)):
        for _ in range(2):
            supervisor.write_text(f"WORDS='{injected(call, 'EIO', number)}'\n")
            done = sysbox("run", "-d", "--name", NAME, *EARLY, image, "true")
            assert done.returncode == 125
            assert re.search(r"/etc/passwd|Input/output error", done.stderr), done.stderr
            assert not POOR.search(done.stderr)
    assert services("failed") == []
    sysbox("gc", check=True)
    nothing_more(sysbox)


CALLS = {
    "mkdir": "ENOSPC", "rename": "EIO", "sendmsg": "EPERM", "clone3": "EAGAIN", "openat": "EMFILE",
    "sendto": "ENOBUFS",
}  # fmt: skip
MOST = 2  # of each kind


@pytest.mark.parametrize("call", CALLS)
def test_a_call_of_the_supervisor_fails(
    sysbox: Sysbox, image: str, supervisor: Path, tmp_path: Path, call: str
) -> None:
    """Whatever the exception is, the client hears of it."""
    command = ("run", "-d", "--name", NAME, image, "sleep", "1000")
    trace = tmp_path / "trace"
    supervisor.write_text(f"WORDS='-o {trace} -e trace=open,openat,execve,{call}'\n")
    sysbox(*command, check=True)
    sysbox("rm", "-f", NAME, check=True)
    numbers = own_calls(trace, call)
    for number in numbers[:: max(1, len(numbers) // MOST)]:
        supervisor.write_text(f"WORDS='{injected(call, CALLS[call], number)}'\n")
        done = sysbox(*command)
        where = f"{call} number {number}: {done.stderr}"
        assert done.returncode in (0, 125), where
        if done.returncode:
            # the last one may be that of the answer itself, for which others answer then
            assert number == numbers[-1] or not POOR.search(done.stderr), where
            assert sysbox("ps", "-aq").stdout == "", where
        sysbox("rm", "-f", "-v", NAME)
        sysbox("gc", check=True)  # what could not be undone since that call failed too
    nothing_more(sysbox)


def injected(call: str, error: str, number: int) -> str:
    return f"-qq -o /dev/null -e trace={call} -e inject={call}:error={error}:when={number}"


def own_calls(trace: Path, call: str) -> list[int]:
    """Which of the calls of a kind come once its record is read and before it becomes the monitor."""
    found, count, begun = [], 0, False
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        begun = begun or "record.json" in line
        if begun and line.startswith("execve("):
            break
        if line.startswith(f"{call}("):
            count += 1
            found += [count] * begun
    assert found, f"it makes no call of {call}"
    return found


def test_a_stop_by_others(sysbox: Sysbox, image: str, supervisor: Path) -> None:
    """That is what the client hears, and the service has not failed."""
    supervisor.write_text("WORDS='-qq -o /dev/null -e inject=mkdir:delay_enter=3s:when=1'\n")
    with popen("run", "-d", "--name", NAME, image, "sleep", "1000") as starting:
        (unit,) = eventually(lambda: services("activating"), "it starts")
        systemctl("stop", unit)
        assert starting.wait() == 125
        assert starting.stderr
        assert "its service was stopped while it started" in starting.stderr.read()
    assert services("failed") == []
    nothing_more(sysbox)


def services(state: str) -> list[str]:
    """The supervising services in a state."""
    listing = ("list-units", "--all", "--plain", "--no-legend", f"--state={state}")
    found = systemctl(*listing, "sysbox-*.service")
    return re.findall(r"^sysbox-[0-9a-f]{64}\.service", found, re.MULTILINE)


@pytest.mark.parametrize("name", ["KILL", "SEGV"])
def test_it_is_killed_at_once(sysbox: Sysbox, image: str, supervisor: Path, name: str) -> None:
    """A process that cannot say anything any more: what runs after its end says it."""
    supervisor.write_text(f"WORDS='-qq -o /dev/null -e inject=openat:signal={name}:when=5'\n")
    done = sysbox("run", "-d", "--name", NAME, image, "sleep", "1000")
    assert done.returncode == 125
    assert f"was killed by SIG{name} before it could say more" in done.stderr
    assert "journalctl -u sysbox-" in done.stderr
    nothing_more(sysbox)
