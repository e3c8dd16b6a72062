"""Names of units, drop-ins, properties: what systemd and its users write."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from inputs import ANY_TEXT, NUMBERS, Refused, outcome, words

from sysbox.host import HostFacts, probe
from sysbox.units import names, scopeplan, serviceplan
from sysbox.units.cgroup import blockdev
from sysbox.units.limits import allowlist, dropins

FACTS = [probe().replace(cgroup_mode=mode) for mode in ("v1", "v2")]
KEYS = st.sampled_from(sorted(allowlist.KEYS))
VALUES = st.one_of(
    words("infinity 50% 64M 1G 0-3 /dev/null /dev/vda 1K 5s 100ms yes no % : , - + *"), NUMBERS
)
UNITS = words("web - . _ \\x2d @ : slice .slice service .scope docker- é /")


@given(ANY_TEXT)
def test_the_name_of_an_object(unit: str) -> None:
    path = names.object_path(unit)
    assert path.isascii()
    assert names.unit_of(path) == unit


@given(UNITS)
def test_slices(text: str) -> None:
    full = outcome(lambda: names.check_slice(text))
    if full is not Refused:
        assert names.check_slice(full) == full
        path = names.slice_path(full)
        assert ".." not in path.split("/")
        assert full == "-.slice" or path.rpartition("/")[2] == full
        assert names.is_below(full, full)


@given(ANY_TEXT)
def test_the_container_of_a_unit(text: str) -> None:
    assert names.container_of(text) == ""
    assert names.container_of(f"docker-{'ab' * 32}.scope") == "ab" * 32


@given(st.lists(st.lists(words("[Scope] [Slice] [Unit] # ; \\ \n = CPUShares= MemoryMax= IOWeight= 64M %% "),
                         max_size=4).map("\n".join), max_size=3))  # fmt: skip
def test_drop_ins(texts: list[str]) -> None:
    merged = dropins.merge(texts)
    for facts in FACTS:
        dropins.tuned_properties(merged, facts)
        dropins.memory_of(merged, facts)
        kept, ignored = dropins.sort_out(dropins.Tuning(facts=facts, found=merged), (), {})
        assert set(kept) | set(ignored) <= set(merged)


@given(KEYS, VALUES, st.sampled_from(FACTS))
def test_properties(key: str, text: str, facts: HostFacts) -> None:
    """As --property takes them; in a drop-in the same value means the same."""
    found = outcome(lambda: allowlist.parse_property(f"{key}={text}", facts))
    again = outcome(lambda: dropins.to_property(key, text, facts))
    if found is not Refused and text.strip() and "\n" not in text:
        assert again == found


@given(words("KEY = CPUShares . é"), st.sampled_from(FACTS))
def test_properties_of_any_name(text: str, facts: HostFacts) -> None:
    outcome(lambda: allowlist.parse_property(text, facts))


@given(ANY_TEXT, ANY_TEXT)
def test_a_line_for_systemctl_status(name: str, image: str) -> None:
    """A description is one printable line, and what is quoted in a unit file stays one word of one line."""
    described = scopeplan.describe(name, image)
    assert described.isprintable()
    if "\0" not in name:
        quoted = serviceplan.program_word(name)
        assert "\n" not in quoted


@given(st.one_of(ANY_TEXT, words("/ /dev /proc null . .. é")))
def test_block_devices(text: str) -> None:
    found = blockdev.disk_of(text)
    assert bool(found.node) is not bool(found.reason)
