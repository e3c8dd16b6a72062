"""One QEMU without KVM: boot a guest, resume it from a snapshot, run commands in it.

A snapshot is the guest's memory in a file, which every run maps privately, and the state of its devices,
which is small: resuming takes a tenth of a second, and no run changes the snapshot. Writes to disks go to
copies that are thrown away. QEMU ends with this process, however that ends, and none of its files has a name.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import wire
from cache import GIB, Failed, cached, digest, need, say
from image import run

MEMORY = 2048  # MiB
BUNDLE = 64 << 20  # bytes of a bundle's disk; constant, since the snapshot has the disk's size
BOOT = 600.0  # seconds; long, since a busy machine is slow
REBOOT = 300.0  # seconds for a shutdown and a boot; five times what they take on a busy machine
STEP = 1.0  # second between two looks at a guest that reboots
FLAVOURS = {
    "permissive": "security=selinux selinux=1 enforcing=0",
    "enforcing": "security=selinux selinux=1 enforcing=1",
    "apparmor": "security=apparmor apparmor=1",
    "smp": "security=selinux selinux=1 enforcing=0",
}
# others have one: two that are emulated wait for each other, and take a quarter more of the host's time
CPUS = {"smp": 2}
QEMU = "qemu-system-x86_64"
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
SCRATCH = os.environ.get("TMPDIR", "/var/tmp")  # for the guest's writes to its disks
# Nehalem: on newer CPUs the guest's programs use instructions that take longer to emulate
MACHINE = (
    "setpriv", "--pdeathsig", "KILL",
    QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
    "-machine", "pc,hpet=off,usb=off,vmport=off,memory-backend=memory",
    "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "Nehalem", "-m", str(MEMORY),
)  # fmt: skip
# show_status: the console says what a boot or a shutdown waits for
KERNEL = "root=/dev/vda rw console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable systemd.show_status=1"
# loads what nearly every run needs, and does what is slow the first time. Without generators a daemon-reload
# takes a third of the time; here none of them makes anything, but for that of /etc/fstab
WARM_UP = """
set -e
systemctl is-system-running --wait || { systemctl --failed; exit 1; }
udevadm settle
mkdir -p /etc/systemd/system-generators
for generator in /usr/lib/systemd/system-generators/*; do
    name=${generator##*/}
    [[ $name == systemd-fstab-generator ]] || ln -s /dev/null "/etc/systemd/system-generators/$name"
done
systemctl daemon-reload
modprobe --all overlay veth bridge loop iptable_nat iptable_raw
/opt/sysbox/bin/python -c 'import pytest, click, pystemd, dbus_next, dnslib, pyroute2, iptc'
sync
"""


def exit_on_signals() -> None:
    """Let a signal end this process by SystemExit, as an error would; further signals are ignored."""

    def leave(number: int, _frame: object) -> None:
        for one in ENDING:
            signal.signal(one, signal.SIG_IGN)
        sys.exit(128 + number)

    for one in ENDING:
        signal.signal(one, leave)


class Qmp:
    """QEMU's control socket."""

    def __init__(self, control: socket.socket) -> None:
        self._file = control.makefile("rw")
        self.events: set[str] = set()  # the names of those that came before the last reply
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: Any) -> Any:
        """The reply to a command. Raises Failed."""
        try:
            self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
            self._file.flush()
            for line in self._file:
                answer = json.loads(line)
                self.events.add(answer.get("event", ""))
                if "error" in answer:
                    raise Failed(f"QEMU: {command}: {answer['error']['desc']}")
                if "return" in answer:
                    return answer["return"]
        except ConnectionError:
            pass  # QEMU has ended: reported below
        raise Failed(f"QEMU ended during {command}")

    def migrate(self, command: str, uri: str, *, until: tuple[str, str]) -> None:
        """Save or load the devices' state; the memory stays in its file."""
        capability = {"capability": "x-ignore-shared", "state": True}
        self("migrate-set-capabilities", capabilities=[capability])
        self(command, uri=uri)
        query, wanted = until
        while (status := self(query).get("status")) != wanted:
            if status == "failed":
                raise Failed(f"QEMU: {command} failed")
            time.sleep(0.01)


class Machine:
    """A running guest: with a bundle it waits for a snapshot to resume, without one it boots."""

    def __init__(
        self, image: Path, flavour: str, disk: str, memory: str, bundle: IO[bytes] | None = None
    ) -> None:
        self._image = image
        self._console = tempfile.TemporaryFile()
        third = bundle or tempfile.TemporaryFile()
        if os.fstat(third.fileno()).st_size > BUNDLE:
            raise Failed("the project is larger than the guest's disk for it")
        third.truncate(BUNDLE)
        agent, agent_end = socket.socketpair()
        control, control_end = socket.socketpair()
        passed = [file.fileno() for file in (agent_end, control_end, self._console, third)]
        command = [
            *MACHINE, "-smp", str(CPUS.get(flavour, 1)),
            "-object", f"memory-backend-file,id=memory,size={MEMORY}M,{memory}",
            "-kernel", f"{image}/vmlinuz", "-initrd", f"{image}/initrd",
            "-append", f"{KERNEL} {FLAVOURS[flavour]}", "-serial", f"file:/dev/fd/{self._console.fileno()}",
            *_drive(0, disk), *_drive(1, f"file={image}/scratch.raw,format=raw,snapshot=on"),
            *_drive(2, f"file=/dev/fd/{third.fileno()},format=raw,snapshot=on"),
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={agent_end.fileno()}",
            "-device", f"virtserialport,chardev=agent,name={wire.PORT}",
            "-chardev", f"socket,id=control,fd={control_end.fileno()}",
            "-mon", "chardev=control,mode=control",
        ]  # fmt: skip
        if bundle:
            command += ["-incoming", "defer"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=passed,
            env={**os.environ, "TMPDIR": SCRATCH}, start_new_session=True,
        )  # fmt: skip
        agent_end.close()
        control_end.close()
        self._agent = agent
        self.port = agent.fileno()
        self.qmp = Qmp(control)

    def await_agent(self) -> None:
        """Wait until the guest has booted. Raises Failed."""
        if not select.select([self.port], [], [], BOOT)[0]:
            raise self.failure(f"has not booted in {BOOT:g} s")
        try:
            wire.receive(self.port)
        except EOFError:
            raise self.failure("died as it booted") from None

    def failure(self, what: str) -> Failed:
        """The error "the guest WHAT", with the last lines of its console."""
        self._console.seek(0)
        lines = self._console.read().decode(errors="replace").splitlines()[-40:]
        advice = f"if this happens again, remove {self._image}: the next run makes it again"
        return Failed("\n".join([f"the guest {what}; its console ends:", *lines, advice]))

    def request(
        self, script: str, environment: dict[str, str], terminal: tuple[int, int] | None = None
    ) -> None:
        """Start a shell script in the guest."""
        request = {
            "script": script, "now": time.time(), "seed": os.urandom(32).hex(),
            "environment": environment, "terminal": terminal,
        }  # fmt: skip
        wire.send(self.port, wire.RUN, json.dumps(request).encode())

    def follow(self, silence: float, output: int = 1, errors: int = 2) -> int:
        """Copy the script's output until it ends; returns its exit status. Raises TimeoutError, Failed.

        `silence`: seconds within which it must write something. There is no limit on the whole time: a busy
        machine takes several times as long.
        """
        sinks = {wire.OUTPUT: output, wire.ERRORS: errors}
        while True:
            kind, data = self._receive(silence)
            if kind == wire.EXIT:
                return int(data)
            view = memoryview(data)
            while view:
                view = view[os.write(sinks[kind], view) :]

    def reboot(self) -> None:
        """Have the guest shut down and boot again; it keeps its disks. Raises Failed."""
        self._boot_again(lambda: self.request("exec systemctl reboot", {}))

    def cut_power(self) -> None:
        """Stop the guest at once, as a power cut does, and boot it. Raises Failed."""
        self._boot_again(lambda: self.qmp("system_reset"))

    def _boot_again(self, begin: Callable[[], object]) -> None:
        # a reset that nobody has asked for is a panic, and ends QEMU
        self.qmp("set-action", reboot="reset")
        self.qmp.events.clear()
        deadline = time.monotonic() + REBOOT
        said: int | None = None  # bytes on the console when the guest was reset
        begin()
        while not self._has_booted():
            status = self.qmp("query-status")["status"]
            if said is None and "RESET" in self.qmp.events:
                said = self._console_size()
            if time.monotonic() > deadline:
                where = self._stuck(status, said)
                raise self.failure(f"{where}, {REBOOT:g} s after its reboot was asked for")
        self.qmp("set-action", reboot="shutdown")

    def _has_booted(self) -> bool:
        try:
            # else the end of the command that reboots it, if that is sent in time
            return self._receive(STEP)[0] == wire.READY
        except TimeoutError:
            return False

    def _stuck(self, status: str, said: int | None) -> str:
        """How far a reboot has come; `said` is the size of the console at the reset, None before that."""
        if said is None:
            return "has not shut down"
        if self._console_size() > said:
            return "was reset and has begun to boot, and is not there"
        return (
            f"was reset and has not begun to boot (QEMU is '{status}'; this is no fault of sysbox)"
        )

    def _console_size(self) -> int:
        return os.fstat(self._console.fileno()).st_size

    def _receive(self, silence: float) -> tuple[bytes, bytes]:
        """One frame from the agent. Raises TimeoutError after `silence` seconds without one, Failed."""
        if not select.select([self.port], [], [], silence)[0]:
            raise TimeoutError
        try:
            return wire.receive(self.port)
        except (EOFError, ConnectionError):
            raise self.failure("died") from None

    def end(self) -> None:
        """Kill QEMU and wait for it."""
        self.process.kill()
        self.process.wait()


def _drive(number: int, options: str) -> list[str]:
    name = f"disk{number}"
    # a full disk here becomes a write error in the guest; by default QEMU would silently stop the guest
    drive = f"if=none,id={name},cache=unsafe,werror=report,{options}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name}"]


def resume(image: Path, flavour: str, bundle: IO[bytes]) -> Machine:
    """A guest resumed from the snapshot, with a bundle as its third disk; makes a missing snapshot."""
    version = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout
    key = digest([Path(__file__).resolve()], version)
    directory = cached(image, flavour, key, 2 * GIB, lambda fresh: _save(image, flavour, fresh))
    need(Path(SCRATCH), GIB)
    disk = f"file={directory}/disk.qcow2,snapshot=on"
    machine = Machine(image, flavour, disk, f"mem-path={directory}/memory,share=off", bundle)
    try:
        source = f"exec:cat {shlex.quote(str(directory))}/devices"
        machine.qmp.migrate("migrate-incoming", source, until=("query-status", "paused"))
        machine.qmp("cont")
    except Failed as error:
        machine.end()
        raise Failed(
            f"{error}; if this happens again, remove {directory}: it is made again"
        ) from None
    except BaseException:
        machine.end()
        raise
    return machine


def _save(image: Path, flavour: str, fresh: Path) -> None:
    say(f"booting the guest ({flavour}) for a snapshot")
    with (fresh / "memory").open("wb") as file:
        file.truncate(MEMORY << 20)
    disk, memory = f"{fresh}/disk.qcow2", f"mem-path={fresh}/memory,share=on"
    run(["qemu-img", *"create -q -f qcow2 -F raw -b".split(), f"{image}/disk.raw", disk])
    machine = Machine(image, flavour, f"file={disk}", memory)
    try:
        machine.await_agent()
        machine.request(WARM_UP, {})
        if machine.follow(BOOT, output=2):
            raise machine.failure("has failed units or lacks a module")
        machine.qmp("stop")
        target = f"exec:cat >{shlex.quote(str(fresh))}/devices"
        machine.qmp.migrate("migrate", target, until=("query-migrate", "completed"))
        machine.qmp("quit")
        machine.process.wait()
    except TimeoutError:
        raise machine.failure(f"was not ready in {BOOT:g} s") from None
    finally:
        machine.end()
