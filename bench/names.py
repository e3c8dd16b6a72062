"""Questions a second: a network's resolver beside aardvark-dns; `bench/names.sh` runs it."""

from __future__ import annotations

import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONTAINERS = 200
ROUNDS = 3
GATEWAYS = ("10.1.0.1", "10.2.0.1")  # ours, theirs
OURS, DNSPERF = "0", "1"  # CPUs
# started as systemd does: the sockets are descriptors 3 and 4
RESOLVER = """
import socket, sys
sys.path.append({package!r})
from sysbox.resolver.serve import Resolver
from sysbox.resolver.upstream import Upstream
sockets = [socket.socket(fileno=fd) for fd in (3, 4)]
Resolver({directory!r}, sockets, Upstream()).run(600)
"""


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def write_names(ours: Path, theirs: Path) -> None:
    """The same containers for both; each is this process."""
    from sysbox.base import codec
    from sysbox.linux import process

    theirs.mkdir()
    ours.mkdir()
    lines = [GATEWAYS[1]]
    own = {"pid": os.getpid(), "start": process.start_time(os.getpid())}
    for number in range(CONTAINERS):
        container, name = f"{number:064x}", f"container-{number}"
        host = f"{number // 250 + 1}.{number % 250 + 2}"
        data = {**own, "name": name, "aliases": [], "addresses": [f"10.1.{host}"]}
        (ours / container).write_bytes(codec.dumps(data))
        lines.append(f"{container} 10.2.{host}  {name}")
    settings = {"subnets": ["10.1.0.0/16"], "gateways": [], "servers": [], "internal": False}
    (ours / "network").write_bytes(codec.dumps(settings))
    (theirs / "lan").write_text("\n".join(lines) + "\n")


def start_ours(directory: Path) -> subprocess.Popen[bytes]:
    import sysbox

    assert sysbox.__file__
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagram.bind((GATEWAYS[0], 53))
    stream = socket.create_server((GATEWAYS[0], 53))

    def place() -> None:
        first, second = os.dup(datagram.fileno()), os.dup(stream.fileno())
        os.dup2(first, 3)
        os.dup2(second, 4)

    package = str(Path(sysbox.__file__).parents[1])
    code = RESOLVER.format(package=package, directory=str(directory))
    command = ["taskset", "-c", OURS, sys.executable, "-I", "-S", "-c", code]
    return subprocess.Popen(command, preexec_fn=place, pass_fds=(3, 4))


def start_theirs(tools: Path, directory: Path) -> int:
    """The pid of its daemon."""
    program = next(path for path in tools.rglob("aardvark-dns") if path.is_file())
    command = [
        "taskset",
        "-c",
        OURS,
        str(program),
        "--config",
        str(directory),
        "--port",
        "53",
        "run",
    ]
    # nothing of it is read: the daemon keeps its streams
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 5
    while not (pid := directory / "aardvark.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return int(pid.read_text())


def measure(tools: Path, server: str, questions: Path, seconds: str) -> float:
    program = next(tools.rglob("bin/dnsperf"))
    libraries = ":".join({str(path.parent) for path in tools.rglob("*.so*")})
    source = server[:-1] + "9"
    command = ["taskset", "-c", DNSPERF, "env", f"LD_LIBRARY_PATH={libraries}", str(program)]
    command += ["-s", server, "-a", source, "-d", str(questions), "-l", seconds, "-q", "100"]
    text = run(*command)
    lost = re.search(r"Queries lost:\s+(\d+)", text)
    codes = re.search(r"Response codes:\s+NOERROR \d+ \(100.00%\)", text)
    found = re.search(r"Queries per second:\s+([0-9.]+)", text)
    assert lost
    assert lost.group(1) == "0", text
    assert codes, text
    assert found, text
    return float(found.group(1))


def main() -> None:
    tools, seconds = Path(sys.argv[1]), sys.argv[2]
    run("ip", "link", "set", "lo", "up")
    for gateway in GATEWAYS:
        for address in (gateway, gateway[:-1] + "9"):
            run("ip", "address", "add", f"{address}/16", "dev", "lo")
    with tempfile.TemporaryDirectory() as work:
        names, theirs = Path(work) / "names", Path(work) / "aardvark"
        write_names(names, theirs)
        questions = Path(work) / "questions"
        questions.write_text("".join(f"container-{n} A\n" for n in range(CONTAINERS)))
        daemon = start_theirs(tools, theirs)
        ours = start_ours(names)
        try:
            time.sleep(0.5)
            found: tuple[list[float], list[float]] = ([], [])
            for _ in range(ROUNDS):
                for number, server in enumerate(GATEWAYS):
                    found[number].append(measure(tools, server, questions, seconds))
        finally:
            os.kill(daemon, signal.SIGKILL)
            ours.kill()
            ours.wait()
    mine, other = map(statistics.median, found)
    print(
        f"sysbox {mine:.0f}, aardvark-dns {other:.0f} questions a second: ratio {mine / other:.2f}"
    )


if __name__ == "__main__":
    main()
