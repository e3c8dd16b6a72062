"""Usage: bench/secured.py FLAVOUR OPTION [PAIRS]

What a start costs by the security module of a guest kernel: pairs of `sysbox run --rm` in a guest of FLAVOUR,
one of each without the module, by `--security-opt OPTION`. Prints both medians and their ratio.

    bench/secured.py apparmor apparmor=unconfined
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUN = ("sysbox", "run", "--rm", "--network", "none")
COMMAND = ("host", "true")
PAIRS = 60


def main() -> int:
    """The exit status, of the guest where this runs on the machine."""
    words = sys.argv[1:]
    if words[:1] == ["--inside"]:
        compare(words[1], int(words[2]))
        return 0
    if len(words) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    root = Path(__file__).resolve().parent.parent
    inside = f"exec python - --inside {words[1]} {words[2] if words[2:] else PAIRS} <<'END'\n"
    script = f"{inside}{Path(__file__).read_text(encoding='utf-8')}\nEND\n"
    guest = [sys.executable, str(root / "tools/vm/run.py"), "--flavour", words[0], script]
    return subprocess.run(guest, check=False).returncode


def compare(option: str, pairs: int) -> None:
    """Measure, in turn, so that whatever slows the machine slows both."""
    kinds = {"with": (), "without": ("--security-opt", option)}
    for flags in kinds.values():
        start(flags)  # the first loads what the others find loaded
    took: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(pairs):
        for name in sorted(kinds, reverse=number % 2 == 1):
            took[name].append(start(kinds[name]))
    for name, times in took.items():
        low, middle, high = statistics.quantiles(times, n=4)
        print(
            f"{name:8} median {middle * 1e3:.0f} ms, quartiles {low * 1e3:.0f} and {high * 1e3:.0f} ms"
        )
    ratio = statistics.median(took["with"]) / statistics.median(took["without"])
    each = statistics.median(a / b for a, b in zip(took["with"], took["without"], strict=True))
    print(f"ratio of the medians {ratio:.3f}, median of the {pairs} ratios {each:.3f}")


def start(flags: tuple[str, ...]) -> float:
    """Seconds that one run takes."""
    began = time.perf_counter()
    subprocess.run([*RUN, *flags, *COMMAND], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
