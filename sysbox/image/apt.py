"""The entries of the machine's apt sources that serve a suite (sources.list(5), one-line and deb822).

A bootstrap gets its packages from the machine's own sources: a local mirror, a snapshot, a proxy. Only the
distribution's archives are used: entries without signed-by=, or signed by an archive keyring.
"""

from __future__ import annotations

import os

_POCKETS = ("", "-updates", "-security", "/updates")
_MAX = 1 << 20


def sources_for(suite: str, root: str = "/etc/apt") -> str:
    """One-line entries for `suite` and its updates, "" if the machine has none."""
    lines = []
    for path in _files(root):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read(_MAX)
        except OSError:
            continue  # ignoring: without any entry, mmdebstrap uses its default mirror
        lines += (
            parse_stanzas(text, suite) if path.endswith(".sources") else parse_lines(text, suite)
        )
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


def parse_lines(text: str, suite: str) -> list[str]:
    """The entries of a sources.list that serve `suite`."""
    found = []
    for raw in text.splitlines():
        words = raw.partition("#")[0].split()
        if not words or words[0] != "deb":
            continue
        options = ""
        if len(words) > 1 and words[1].startswith("["):
            end = next((at for at, word in enumerate(words) if word.endswith("]")), 0)
            options = " ".join(words[1 : end + 1])
            words = [words[0], *words[end + 1 :]]
        if len(words) > 3 and _serves(words[2], suite) and _own_key(_key(options)):
            found.append(" ".join(filter(None, ["deb", options, *words[1:]])))
    return found


def parse_stanzas(text: str, suite: str) -> list[str]:
    """The stanzas of a deb822 file that serve `suite`, as one-line entries."""
    found = []
    for stanza in _stanzas(text):
        key = stanza.get("signed-by", "")
        enabled = stanza.get("enabled", "yes").lower() not in ("no", "false", "0")
        if "deb" not in stanza.get("types", "").split() or not enabled or not _own_key(key):
            continue
        # a key that is embedded in the stanza does not fit into a one-line entry
        options = f"[signed-by={key}] " if key.startswith("/") and " " not in key else ""
        components = stanza.get("components", "")
        found += [
            f"deb {options}{uri} {name} {components}"
            for uri in stanza.get("uris", "").split()
            for name in stanza.get("suites", "").split()
            if components and _serves(name, suite)
        ]
    return found


def _files(root: str) -> list[str]:
    parts = f"{root}/sources.list.d"
    try:
        names = sorted(os.listdir(parts))
    except OSError:
        names = []
    return [f"{root}/sources.list"] + [
        f"{parts}/{name}" for name in names if name.endswith((".list", ".sources"))
    ]


def _stanzas(text: str) -> list[dict[str, str]]:
    stanzas: list[dict[str, str]] = [{}]
    last = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            stanzas.append({})
            last = ""
        elif line[0] in " \t":
            if last:
                stanzas[-1][last] += f" {line.strip()}"
        else:
            key, _, value = line.partition(":")
            last = key.strip().lower()
            stanzas[-1][last] = value.strip()
    return stanzas


def _key(options: str) -> str:
    """The value of signed-by= in "[arch=amd64 signed-by=/path]"."""
    found = [word for word in options.strip("[]").split() if word.lower().startswith("signed-by=")]
    return found[0] if found else ""


def _serves(name: str, suite: str) -> bool:
    return any(name == suite + pocket for pocket in _POCKETS)


def _own_key(key: str) -> bool:
    """Whether `key` is the distribution's: none, or an archive keyring. Third parties have their own."""
    return not key or "archive-keyring" in key
