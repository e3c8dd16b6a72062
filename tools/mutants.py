"""Usage: tools/mutants.py [TEXT...]

Applies the mutants of tests/mutants/*.txt, one at a time, and reports which test notices each. A mutant is a
small mistake in one place: a check is missing, a constant is another, two steps are swapped. With TEXT only
the mutants that have one of them in their name, file or tests. Must be root; needs what the tests need
(`make test-extras`).

The checkout and its environment are not changed: everything runs on an overlay that is mounted over the
checkout in a mount namespace of its own, where the mutant is installed as `make build` does it. First the
tests run without a mutant, and must pass.

    noticed     a test failed; it is named
    SURVIVED    the tests passed
    HUNG        the tests did not end: one of them needs a time limit of its own
    GONE        the text is not in the file any more, or is there twice
    BROKEN      the tests could not run; the end of their output is shown

Exit status: 0 if every mutant is noticed or equivalent, else 1.

The format of a file: lines behind # are comments; an empty line ends a mutant. Each has these lines:

    name: what is wrong
    file: path                  in the checkout
    danger: what may follow     only for one that loses data, gives rights away or never ends
    guest: reason               its tests run in a guest alone: here they might change files of the machine
    tests: id                   pytest's id of a test that should notice it; one line for each
    equivalent: reason          in place of tests: why no test can notice it
    and the change, as diff -u shows it: lines behind " ", "-" and "+"
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MUTANTS = ROOT / "tests/mutants"
ON_A_HOST = ("tests/host/", "tests/attack/")
IN_A_GUEST = "tests/vm/"
PYTEST = (".venv/bin/pytest", "-q", "-p", "no:cacheprovider")
HOST = ("tools/test-host.sh", "-q")
GUEST = ("tools/test-vm.sh", "-q")
LIMIT = 600  # seconds for the tests of one mutant
STOPPING = 90  # seconds for a lane that is terminated to stop its host
END = 30  # lines of a log
TESTS_FAILED = 1  # exit status of pytest; any other but 0 says that it could not run them
WELL = {"noticed", "equivalent"}
FAILED = re.compile(r"^failed: (\S.*)$", re.MULTILINE)  # printed by tests/conftest.py
# arguments: checkout, an empty directory, the file in the checkout, its text for this run, the command
ON_OVERLAY = """
mount -t tmpfs mutant "$2"
mkdir "$2/upper" "$2/work"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" mutant "$1"
cd "$1"
[ -z "$3" ] || cp "$4" "$3"
.venv/bin/python -I tools/install.py --test
shift 4
exec "$@"
"""


@dataclass(frozen=True)
class Mutant:
    """One mistake, as it is written down."""

    name: str  # FILE/NAME; FILE without .txt
    what: str
    file: str  # relative to the checkout
    before: str  # whole lines
    after: str
    tests: tuple[str, ...] = ()
    danger: str = ""
    guest: str = ""
    equivalent: str = ""

    def apply(self, text: str) -> str:
        """The text of the file with the mistake. Raises LookupError if `before` is not there exactly once."""
        found = [
            one.start() for one in re.finditer(f"^{re.escape(self.before)}", text, re.MULTILINE)
        ]
        if len(found) != 1:
            raise LookupError(f"{self.name}: its text is {len(found)} times in {self.file}")
        return text[: found[0]] + self.after + text[found[0] + len(self.before) :]


def parse(path: Path) -> list[Mutant]:
    """The mutants of one file. Raises ValueError, naming the file and the mutant."""
    found = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith("#")]
        if lines:
            try:
                found.append(parse_one(path.stem, lines))
            except (KeyError, ValueError) as error:
                raise ValueError(f"{path.name}: {lines[0]}: {error}") from None
    return found


def parse_one(stem: str, lines: list[str]) -> Mutant:
    """One mutant. Raises ValueError; KeyError for a line that is missing."""
    name, _, what = lines[0].partition(": ")
    fields: dict[str, list[str]] = {}
    before, after = [], []
    for line in lines[1:]:
        if line[:1] in " -":
            before.append(line[1:])
        if line[:1] in " +":
            after.append(line[1:])
        if line[:1] not in " -+":
            key, _, value = line.partition(": ")
            if key not in ("file", "danger", "guest", "tests", "equivalent") or not value:
                raise ValueError(f"not a line of a mutant: {line}")
            fields.setdefault(key, []).append(value)
    if not what or not before or before == after:
        raise ValueError("a mutant says what is wrong, and changes something")
    if ("tests" in fields) == ("equivalent" in fields):
        raise ValueError("a mutant has either tests, or the reason why it is equivalent")
    return Mutant(
        name=f"{stem}/{name}",
        what=what,
        file=fields["file"][0],
        before="".join(f"{line}\n" for line in before),
        after="".join(f"{line}\n" for line in after),
        tests=tuple(fields.get("tests", ())),
        danger=" ".join(fields.get("danger", ())),
        guest=" ".join(fields.get("guest", ())),
        equivalent=" ".join(fields.get("equivalent", ())),
    )


def all_mutants() -> list[Mutant]:
    """Those of all files. Raises ValueError."""
    return [mutant for path in sorted(MUTANTS.glob("*.txt")) for mutant in parse(path)]


def chosen(mutants: Iterable[Mutant], texts: list[str]) -> list[Mutant]:
    """The mutants that have one of the texts in their name, file or tests."""
    return [
        mutant
        for mutant in mutants
        if not texts
        or any(text in " ".join((mutant.name, mutant.file, *mutant.tests)) for text in texts)
    ]


def commands(mutants: Iterable[Mutant]) -> list[tuple[str, ...]]:
    """The command of each lane that has some of their tests; first the quick ones.

    In a guest each file has a command of its own, since they need different guests.
    """
    here, hosts = dict[str, None](), dict[str, None]()
    guests: dict[str, dict[str, None]] = {}
    for mutant in mutants:
        for test in mutant.tests:
            if mutant.guest or test.startswith(IN_A_GUEST):
                guests.setdefault(test.partition("::")[0], {})[test] = None
            else:
                (hosts if test.startswith(ON_A_HOST) else here)[test] = None
    lanes = [(PYTEST, here), (HOST, hosts), *((GUEST, ids) for ids in guests.values())]
    return [(*lane, *ids) for lane, ids in lanes if ids]


def run(command: tuple[str, ...], file: str = "", text: str = "") -> tuple[int | None, str]:
    """The exit status (None: it did not end) and the output of a command on an overlay of the checkout.

    With `file` it has `text` for this run.
    """
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        space, staged = Path(directory, "space"), Path(directory, "staged")
        space.mkdir()
        staged.write_text(text, encoding="utf-8")
        log = Path(directory, "log")
        script = ("sh", "-euc", ON_OVERLAY, "sh", ROOT, space, file, staged)
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["/usr/bin/unshare", "--mount", *script, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # a missing program is a failure, not a skip, which would pass for a survivor
                env={**os.environ, "CI": "1"},
                start_new_session=True,
            )
            status = wait(process)
        return status, log.read_text(encoding="utf-8", errors="replace")


def wait(process: subprocess.Popen[bytes]) -> int | None:
    """The exit status of a process that leads a group; None if it had to be ended.

    The rest of its group is killed: a test that fails may leave what it has started.
    """
    try:
        return process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)  # the host lane stops its host
                process.wait(STOPPING)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def judge(mutant: Mutant) -> tuple[str, str]:
    """(the word for what came of it, what there is to say of that)."""
    try:
        text = mutant.apply((ROOT / mutant.file).read_text(encoding="utf-8"))
    except (LookupError, OSError) as error:
        return "GONE", str(error)
    if mutant.equivalent:
        return "equivalent", mutant.equivalent
    failed: list[str] = []
    for command in commands([mutant]):
        status, output = run(command, mutant.file, text)
        if status is None:
            return "HUNG", " ".join(command)
        if status not in (0, TESTS_FAILED):
            return "BROKEN", f"status {status}\n{end_of(output)}"
        failed += FAILED.findall(output) if status else []
    return ("noticed", ", ".join(dict.fromkeys(failed))) if failed else ("SURVIVED", mutant.what)


def end_of(output: str) -> str:
    """Its last lines."""
    return "\n".join(output.splitlines()[-END:])


def passes_without(mutants: list[Mutant]) -> bool:
    """Whether the tests pass without a mutant; the end of their output is shown if they do not."""
    for command in commands(mutants):
        status, output = run(command)
        if status != 0:
            print(f"{end_of(output)}\nmutants: these tests fail without a mutant", file=sys.stderr)
            return False
    return True


def main(texts: list[str]) -> int:
    """The exit status."""
    if os.geteuid():
        print("mutants: must be root", file=sys.stderr)
        return 1
    mutants = chosen(all_mutants(), texts)
    if not mutants:
        print("mutants: none has that in its name, file or tests", file=sys.stderr)
        return 1
    if not passes_without(mutants):
        return 1
    counts: dict[str, int] = {}
    for mutant in mutants:
        begun = time.monotonic()
        word, text = judge(mutant)
        counts[word] = counts.get(word, 0) + 1
        danger = " (danger)" if mutant.danger and word not in WELL else ""
        print(
            f"{word:<11} {mutant.name}{danger} {time.monotonic() - begun:.0f} s: {text}", flush=True
        )
    print(", ".join(f"{count} {word}" for word, count in counts.items()))
    return 0 if WELL.issuperset(counts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
