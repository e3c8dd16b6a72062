"""Declarations that sysbox writes: a command line, and a specification, are read back as they were."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from inputs import ANY_TEXT, Refused, outcome
from written import SAMPLES, again, build, declared, file_of, words_of

# what may have any text in it
FREE = st.sampled_from(
    ["--env=A=", "--env=", "--label=", "--annotation=", "--entrypoint=", "--health-cmd=", "--workdir=/",
     "--volume=/a", "--volume=/x:/", "--tmpfs=/", "--mount=type=bind,dst=/m,src=/", "--sysctl=net.a=",
     "--log-opt=tag=", "--security-opt=seccomp=/", "--device=/dev/", "--hostname=", "--user=", "--pid=ns:/",
     "--network=", "--add-host=", "--stop-signal=", "--detach-keys=", "--label=io.containers.autoupdate="]
)  # fmt: skip
TEXTS = ANY_TEXT.filter(lambda text: "\0" not in text)
TRICKY = st.lists(
    st.sampled_from(["$", "$$", "%", "%%", "%n", "${A}", '"', "'", "\\", "\\x41", "\n", " ", ";", "#", ",",
                     ":", "=", ".volume", ".network", "é", "\udc80", "a", "/"]),
    max_size=6,
).map("".join)  # fmt: skip
VALUES = st.one_of(TEXTS, TRICKY)
SAMPLED = st.lists(st.sampled_from(sorted(SAMPLES)), max_size=3).map(
    lambda names: [word for name in names for word in SAMPLES[name]]
)


@example([], [("--env=A=", "%n $A\n")], ["$$", "%"])
@given(SAMPLED, st.lists(st.tuples(FREE, VALUES), max_size=4), st.lists(VALUES, max_size=4))
def test_a_command_line(
    sampled: list[str], free: list[tuple[str, str]], command: list[str]
) -> None:
    """It is read back from its file and from its specification, or is refused in one line."""
    line = ["--name=web", *sampled, *map("".join, free), "--", "image", *command]
    asked = outcome(lambda: again(build(*line)))
    if asked is Refused:
        return
    assert declared(file_of(*line)) == asked
    assert again(build(*words_of(build(*line)))) == asked
