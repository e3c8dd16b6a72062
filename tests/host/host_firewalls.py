"""firewalld and ufw as they run on a host: installed in the guest, elsewhere unpacked by tools/setup.sh.

Neither is ever enabled. The host is as before when `stop` has returned.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from containers import PATIENCE, Container, eventually
from lane import Sysbox

UNPACKED = Path(sys.prefix) / "test-services"
CONF = Path("/etc/sysbox/sysbox.conf.d/test-firewall.conf")
HOST, BEYOND = (
    "192.0.2.2",
    "198.51.100.1",
)  # of tools/test-network.sh: the host's uplink, a server's address
HTTPD = ("sh", "-c", "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp")
REFUSED = ""  # what `fetch` and `from_outside` return where nothing comes through
NET = "192.0.2.0/24"  # where packets from outside come from


def run(*words: str | Path, env: dict[str, str] | None = None) -> str:
    """A program's output; its standard error where it fails."""
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def from_outside(port: int, host: str = HOST) -> str:
    """What a web server on a port of the host says to another machine; "" where nothing comes through."""
    return _fetch(host, port, "ip", "netns", "exec", "outside")


@contextmanager
def server_beyond() -> Iterator[None]:
    """A web server of another machine, on the port 8000 of BEYOND."""
    words = f"ip netns exec outside python3 -I -m http.server --bind {BEYOND} 8000"
    directory = Path("/run/test-beyond")
    directory.mkdir()
    (directory / "index.html").write_text("hello\n", encoding="ascii")
    with subprocess.Popen(words.split(), cwd=directory, stderr=subprocess.DEVNULL) as process:
        eventually(lambda: from_outside(8000, BEYOND) == "hello", "it is served")
        yield
        process.kill()
    shutil.rmtree(directory)


def fetch(one: Container, host: str, port: int) -> str:
    """What a web server says to a container; "" where nothing comes through."""
    return one.sh(f"timeout {PATIENCE:.0f} wget -qO- http://{host}:{port}/ || true")


def _fetch(host: str, port: int, *under: str) -> str:
    # the kernel answers for a server that is slow: a first SYN that is lost is sent again after a second
    program = (
        "import http.client, sys;"
        "one = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=2);"
        "one.connect(); one.sock.settimeout(float(sys.argv[3]));"
        "one.request('GET', '/'); print(one.getresponse().read().decode())"
    )
    words = (*under, "python3", "-I", "-c", program, host, str(port), str(PATIENCE))
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def configure(sysbox: Sysbox, text: str) -> None:
    """Make sysbox.conf say this of the section Network, and the rules with it; "" for no file."""
    if text:
        CONF.parent.mkdir(parents=True, exist_ok=True)
        CONF.write_text(f"[Network]\n{text}\n", encoding="ascii")
    else:
        CONF.unlink(missing_ok=True)
    sysbox("network", "reload", check=True)


class Firewalld:
    """firewalld.service, with a configuration of its own."""

    _UNIT = Path("/run/systemd/system/firewalld.service")
    _POLKIT = Path("/run/systemd/system/polkit.service")
    _BUS = Path("/etc/dbus-1/system.d/FirewallD.conf")
    _ETC, _USR = Path("/run/test-firewalld/etc"), Path("/run/test-firewalld/usr")
    _SERVICES = Path("/usr/lib/firewalld/services")
    # a reload reads them all, which takes longer than all else: those that its zones name are enough
    _NAMED = ("ssh", "dhcpv6-client", "mdns", "samba-client", "netbios-ns")

    def __init__(self) -> None:
        self.installed = Path("/usr/sbin/firewalld").exists()
        packages = UNPACKED / "usr/lib/python3/dist-packages"
        typelibs = next(UNPACKED.glob("usr/lib/*/girepository-1.0"), Path("/nowhere"))
        paths = {
            "PYTHONPATH": packages,
            "GI_TYPELIB_PATH": typelibs,
            "LD_LIBRARY_PATH": typelibs.parent,
        }
        self._env = {} if self.installed else {name: str(path) for name, path in paths.items()}
        if self.installed:
            self._cover()
        else:
            self._unpack()
        self.start()

    def start(self) -> None:
        run("systemctl", "start", "firewalld")
        self.cmd(
            "--state"
        )  # it has its name on the bus before it has its rules, and answers once it has both

    def restart(self) -> None:
        run("systemctl", "restart", "firewalld")
        self.cmd("--state")

    def _cover(self) -> None:
        """Have it find few of the services that are installed."""
        few = self._USR / "services"
        few.mkdir(parents=True)
        for name in self._NAMED:
            shutil.copy(self._SERVICES / f"{name}.xml", few)
        run("mount", "--bind", few, self._SERVICES)

    def _unpack(self) -> None:
        shutil.copytree(UNPACKED / "etc/firewalld", self._ETC)
        shutil.copytree(UNPACKED / "usr/lib/firewalld", self._USR)
        for file in self._USR.glob("services/*.xml"):
            if file.stem not in self._NAMED:
                file.unlink()
        self._BUS.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(UNPACKED / "usr/share/dbus-1/system.d/FirewallD.conf", self._BUS)
        bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
        run("busctl", "call", *bus, "ReloadConfig")
        source = (UNPACKED / "lib/systemd/system/firewalld.service").read_text(encoding="utf-8")
        program = UNPACKED / "usr/sbin/firewalld"
        ours = f"{program} --default-config {self._USR} --system-config {self._ETC}"
        text = source.replace("/usr/sbin/firewalld", ours)
        for name, value in self._env.items():
            text = text.replace("[Service]\n", f"[Service]\nEnvironment={name}={value}\n")
        self._UNIT.parent.mkdir(parents=True, exist_ok=True)
        self._UNIT.write_text(text, encoding="utf-8")
        # polkit does not know the actions of what is not installed; without it firewalld lets root do all
        self._POLKIT.symlink_to("/dev/null")
        run("systemctl", "daemon-reload")
        run("systemctl", "stop", "polkit")

    def cmd(self, *words: str) -> str:
        """firewall-cmd(1): its output."""
        program = "firewall-cmd"
        if self.installed:
            return run(program, *words)
        env = {**os.environ, **self._env}
        return run("/usr/bin/python3", UNPACKED / "usr/bin" / program, *words, env=env)

    def stop(self) -> None:
        run("systemctl", "stop", "firewalld")
        if self.installed:
            run("umount", self._SERVICES)
            shutil.rmtree(self._USR.parent)
            return
        self._UNIT.unlink()
        self._POLKIT.unlink()
        self._BUS.unlink()
        shutil.rmtree(self._ETC.parent)
        run("systemctl", "daemon-reload")


class Ufw:
    """ufw, enabled, with its rules in files of its own."""

    _DATA = Path("/run/test-ufw")
    _CONF = Path("/etc/ufw/ufw.conf")

    def __init__(self) -> None:
        self.installed = Path("/usr/sbin/ufw").exists()
        self._tables = set(run("nft", "list", "tables").splitlines())
        if not self.installed:
            self._unpack()
        self.cmd("--force", "enable")
        self.cmd("reload")  # makes one rule more than the first start

    def _unpack(self) -> None:
        """As the package's postinst does, below a directory that can be written."""
        share = UNPACKED / "usr/share/ufw"
        shutil.copytree(UNPACKED / "etc/ufw", self._DATA / "etc/ufw")
        shutil.copytree(UNPACKED / "etc/default", self._DATA / "etc/default", dirs_exist_ok=True)
        for name in ("lib/ufw", "usr/share/ufw"):
            shutil.copytree(UNPACKED / name, self._DATA / name)
        for file in (*share.glob("iptables/*.rules"), share / "ufw.conf"):
            shutil.copy(file, self._DATA / "etc/ufw" / file.name)
        # packages with rules for ufw may have made the directory
        self._CONF.parent.mkdir(exist_ok=True)
        self._CONF.symlink_to(self._DATA / "etc/ufw/ufw.conf")

    def cmd(self, *words: str) -> str:
        """ufw(8): its output."""
        if self.installed:
            return run("ufw", *words)
        packages = UNPACKED / "usr/lib/python3/dist-packages"
        env = {**os.environ, "PYTHONPATH": str(packages)}
        program = ("/usr/bin/python3", UNPACKED / "usr/sbin/ufw")
        where = (f"--rootdir={self._DATA}", f"--datadir={self._DATA}")
        return run(*program, *where, *words, env=env)

    def stop(self) -> None:
        self.cmd("--force", "reset")
        self.cmd("disable")
        # ufw leaves its chains until the next boot, and the jumps to them
        for line in set(run("nft", "list", "tables").splitlines()) - self._tables:
            run("nft", *f"delete {line}".split())
        if self.installed:
            return
        self._CONF.unlink()
        shutil.rmtree(self._DATA)


def first_container(sysbox: Sysbox, image: str) -> None:
    """Have a container start and end: what it makes for the network `bridge` stays."""
    sysbox("run", "--rm", image, "true", check=True)
    links = Path("/sys/class/net")
    eventually(lambda: not list(links.glob("sb?????*[0-9a-f]")), "the kernel has removed its link")


def served(port: int) -> None:
    """Wait until the container's web server answers the host itself."""
    eventually(lambda: _fetch("127.0.0.1", port) == "hello", f"port {port} is served")
