"""The environment variables that the flags of `run`, `create` and `exec` ask for."""

from __future__ import annotations

from sysbox.parse.process import parse_env, parse_env_file


def build(files: list[str], texts: list[str]) -> tuple[str, ...]:
    """ "NAME=VALUE" of --env-file and -e; a later one replaces an earlier one of the same name.

    Raises SpecError.
    """
    found: dict[str, str] = {}
    for path in files:
        for one in parse_env_file(path, "--env-file"):
            found[one.partition("=")[0]] = one
    for text in texts:
        one_env = parse_env(text, "--env")
        if one_env is not None:
            found[one_env.partition("=")[0]] = one_env
    return tuple(found.values())
