"""From the system calls that a container has made to a profile that allows these, in docker's JSON. Pure.

Of the default profile, which held while they were recorded, the conditions stay: on arguments, and on
capabilities. So the profile allows nothing that the default one refuses.
"""

from __future__ import annotations

import errno
import posix

from sysbox.security import bpf, known_calls, profile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from typing import Any

_X32_BIT = 0x40000000  # __X32_SYSCALL_BIT
# what sysbox does under a filter, and what the kernel does of itself; they need not have been seen
ALWAYS = (
    "capget capset clone close execve exit exit_group getgid getuid poll prctl read restart_syscall "
    "rt_sigreturn setgroups setresgid setresuid setsid write"
).split()


def profile_of(calls: Iterable[tuple[int, int]], *, privileged: bool, machine: str = "") -> bytes:
    """The JSON of a profile for calls as (AUDIT_ARCH_*, number); `privileged` has no default profile.

    `machine` is that of uname(2). Raises Unsupported without libseccomp.
    """
    library = bpf.library()
    native, subs = bpf.ARCHITECTURES[machine or posix.uname().machine][1:]
    own = (native, *subs, *(("X32",) if native == "X86_64" else ()))
    names, tokens = _names(library, calls, own)
    others = sorted(token for token in tokens if token != native)
    called = names.union(ALWAYS)
    rules = [*_plain(called)] if privileged else [*_rules(called)]
    lacking = _without_kernel(library) - called
    if lacking:
        rules.append({"names": sorted(lacking), "action": profile.ERRNO, "errnoRet": errno.ENOSYS})
    import json

    data = {
        "defaultAction": profile.ERRNO,
        "defaultErrnoRet": errno.EPERM,
        "archMap": [
            {
                "architecture": f"SCMP_ARCH_{native}",
                "subArchitectures": [f"SCMP_ARCH_{token}" for token in others],
            }
        ],
        "syscalls": rules,
    }
    return (json.dumps(data, indent=2) + "\n").encode("ascii")


def _names(
    library: Any, calls: Iterable[tuple[int, int]], architectures: tuple[str, ...]
) -> tuple[set[str], set[str]]:
    """The names of the calls, and which of the CPU's architectures they are of; the rest is left out."""
    token_of = {getattr(library.Arch, name): name for name in architectures}
    names, tokens = set(), set()
    for architecture, number in calls:
        token = architecture
        if token == library.Arch.X86_64 and number & _X32_BIT:
            token = library.Arch.X32
        if token not in token_of:
            continue
        try:
            names.add(library.resolve_syscall(token, number).decode())
        except ValueError:
            continue
        tokens.add(token_of[token])
    return names, tokens


def _without_kernel(library: Any) -> set[str]:
    """Calls for which the default profile says ENOSYS: programs fall back to others."""
    rules = profile.default().rules
    plain = {name for rule in rules if not rule.if_caps for name in rule.names}
    refused = {name for rule in rules if rule.unless_caps for name in rule.names}
    return known_calls.names_of(library) - plain - refused


def _plain(called: Collection[str]) -> Iterator[dict[str, Any]]:
    yield {"names": sorted(called), "action": profile.ALLOW}


def _rules(called: Collection[str]) -> Iterator[dict[str, Any]]:
    """The rules of the default profile that allow one of the calls, for these calls.

    What else was called, a process of `exec --privileged` has called, and the container may not.
    """
    guards = [one for one in profile.GUARDS if one.name in called and one.values]
    guarded = {one.name for one in guards}
    everywhere: set[str] = set()
    conditional = []
    for rule in profile.default().rules:
        found = set(called).intersection(rule.names)
        if rule.action != profile.ALLOW or not found:
            continue
        if rule.args or rule.if_caps or rule.unless_caps or rule.if_arches or rule.unless_arches:
            conditional.append(rule.replace(names=tuple(sorted(found))))
        else:
            everywhere |= found
    yield from _plain(everywhere - guarded)
    for rule in conditional:
        yield _rule(rule)
    for guard in guards:
        yield from _guarded(guard)


def _rule(rule: profile.Rule) -> dict[str, Any]:
    data: dict[str, Any] = {"names": list(rule.names), "action": rule.action}
    if rule.args:
        data["args"] = [
            {"index": one.index, "value": one.value, "valueTwo": one.value_two, "op": one.op}
            for one in rule.args
        ]
    for key, caps, arches in (
        ("includes", rule.if_caps, rule.if_arches),
        ("excludes", rule.unless_caps, rule.unless_arches),
    ):
        given = {"caps": [f"CAP_{cap}" for cap in caps], "arches": list(arches)}
        if chosen := {name: values for name, values in given.items() if values}:
            data[key] = chosen
    return data


def _guarded(guard: profile.Guard) -> Iterator[dict[str, Any]]:
    """All values of the lower half of an argument but the guard's, as a rule for each of some bits.

    Two comparisons of one argument are alternatives in docker's JSON: no rule can say "neither A nor B". So
    a value is allowed if it differs in a bit in which the guard's values agree, or, in the bits in which they
    do not, from each of them.
    """
    base = profile.Rule(names=(guard.name,), unless_caps=guard.unless_caps)
    every, common = 0xFFFFFFFF, 0xFFFFFFFF
    for value in guard.values:
        common &= ~(value ^ guard.values[0])
    pairs = [
        (1 << bit, (every ^ guard.values[0]) & 1 << bit) for bit in range(32) if common >> bit & 1
    ]
    differing = every ^ common
    taken = {value & differing for value in guard.values}
    part = differing
    while True:
        if part not in taken:
            pairs.append((differing, part))
        if not part:
            break
        part = (part - 1) & differing
    comment = f"not {', '.join(map(hex, guard.values))}"
    for mask, value in pairs:
        one = profile.Condition(
            index=guard.index, value=mask, value_two=value, op=profile.MASKED_EQ
        )
        yield {**_rule(base.replace(args=(one,))), "comment": comment}
    for cap in guard.unless_caps:
        yield _rule(profile.Rule(names=(guard.name,), if_caps=(cap,)))
