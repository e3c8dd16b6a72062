"""What a hot verb costs is what it imports: C modules of the standard library and sysbox, nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import source

import sysbox

# Each is a C module of the standard library, or frozen into the interpreter and loaded by it anyway.
ALLOWED = set(
    """__future__ _blake2 _io _json _posixsubprocess _sha256 _sha2 _signal _socket _stat _struct _thread array
       _imp binascii builtins errno fcntl gc marshal posix select sys termios time zlib""".split()
)
# Loaded by the interpreter's own start, at no cost to us.
INTERPRETER = set(
    """__main__ _abc _codecs _frozen_importlib _frozen_importlib_external _imp _thread _warnings _weakref
       abc codecs encodings io zipimport""".split()
)
# Verbs that may take their time, and the modules that only they reach.
COLD = (
    "sysbox.build",
    "sysbox.cli.commands.bootstrap", "sysbox.cli.commands.login", "sysbox.cli.commands.logout",
    "sysbox.cli.commands.manifest", "sysbox.cli.commands.pull", "sysbox.cli.commands.push",
    "sysbox.cli.layer_progress", "sysbox.cli.pulling", "sysbox.cli.parse.cold", "sysbox.cli.parse.completers",
    "sysbox.cli.commands.explain", "sysbox.cli.commands.explain_rows", "sysbox.cli.commands.events",
    "sysbox.cli.commands.host", "sysbox.cli.commands.import_", "sysbox.cli.commands.commit",
    "sysbox.cli.commands.cp", "sysbox.cli.commands.diff", "sysbox.cli.commands.export",
    "sysbox.cli.progress", "sysbox.cli.commands.prune", "sysbox.cli.commands.rmi", "sysbox.cli.standing",
    "sysbox.cli.commands.secret", "sysbox.cli.request.secret_value", "sysbox.docker.secret",
    "sysbox.cli.commands.trust", "sysbox.cli.commands.volume", "sysbox.content.copy",
    "sysbox.cli.commands.network", "sysbox.cli.commands.network_connect",
    "sysbox.cli.commands.network_explain", "sysbox.netns.ways",
    "sysbox.content.extract", "sysbox.content.layer", "sysbox.lifecycle.prune", "sysbox.cli.commands.help_",
    "sysbox.cli.parse.later", "sysbox.embedded", "sysbox.image", "sysbox.netns.bridges",
    "sysbox.units.manager", "sysbox.units.watch", "sysbox.cli.commands.tag", "sysbox.cli.commands.untag",
    "sysbox.cli.commands.history", "sysbox.cli.commands.image_tree", "sysbox.cli.commands.save",
    "sysbox.cli.commands.load", "sysbox.cli.commands.system_df", "sysbox.cli.output_file",
    "sysbox.cli.commands.unit", "sysbox.cli.commands.unit_start", "sysbox.cli.unit_check",
    "sysbox.cli.commands.auto_update", "sysbox.lifecycle.auto_update",
    "sysbox.cli.commands.unit_generate", "sysbox.cli.unit_pull",
    "sysbox.cli.request.declaration", "sysbox.cli.request.declared_set", "sysbox.cli.request.sockets_of",
    "sysbox.cli.request.words", "sysbox.cli.request.words_limits",
    "sysbox.cli.request.words_network", "sysbox.cli.request.words_health",
    "sysbox.cli.commands.system_units", "sysbox.lifecycle.system_units", "sysbox.cli.doctor.declared",
    "sysbox.lifecycle.unit", "sysbox.lifecycle.unit_makers", "sysbox.lifecycle.unit_files",
    "sysbox.cli.unit_errors", "sysbox.cli.unit_verify", "sysbox.cli.unit_words",
    "sysbox.cli.unit_protection",
    "sysbox.lifecycle.unit_jobs", "sysbox.lifecycle.unit_owners", "sysbox.cli.commands.pod_logs",
    "sysbox.cli.commands.pod_prune",
    "sysbox.lifecycle.declared", "sysbox.lifecycle.proxy", "sysbox.units.quadlet",
    "sysbox.cli.build_progress", "sysbox.cli.commands.build",
    "sysbox.cli.request.build", "sysbox.lifecycle.build", "sysbox.lifecycle.build_cache",
    "sysbox.lifecycle.images", "sysbox.lifecycle.network", "sysbox.lifecycle.network_connect",
    "sysbox.lifecycle.network_drivers",
    "sysbox.resolver",
)  # fmt: skip
# Part of a cold package, yet on the way of `run`.
HOT_AFTER_ALL = {
    f"sysbox.{name}"
    for name in """image image.builtin image.catalog image.documents image.machine image.model
                   image.reference image.resolved image.store
                   embedded embedded.caller_root embedded.enter embedded.join
                   embedded.state""".split()
}
MODULES = source.modules()


def is_cold(name: str) -> bool:
    """Whether a module is reached by cold verbs only."""
    if name in HOT_AFTER_ALL:
        return False
    return any(name == cold or name.startswith(f"{cold}.") for cold in COLD)


def test_the_tables_name_what_there_is() -> None:
    assert {*COLD, *HOT_AFTER_ALL} <= set(MODULES), {*COLD, *HOT_AFTER_ALL} - set(MODULES)


HOT = sorted(name for name in MODULES if not is_cold(name))


@pytest.mark.parametrize("module", HOT)
def test_top_level_imports(module: str) -> None:
    needs = source.imports(MODULES[module], top_level_only=True)
    heavy = source.outside(needs) - ALLOWED
    assert not heavy, f"{module} is hot and imports {', '.join(sorted(heavy))} at its top"
    cold = {name for name in source.own(needs) if is_cold(name)}
    assert not cold, f"{module} is hot and imports {', '.join(sorted(cold))} at its top"


def run_isolated(*arguments: str) -> subprocess.CompletedProcess[str]:
    """As the launcher starts it, with the times of the imports on standard error."""
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-X", "importtime", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def imported(stderr: str) -> set[str]:
    """The modules in what -X importtime prints."""
    lines = (line for line in stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip() for line in lines} - {"imported package"}


def extra(names: set[str]) -> list[str]:
    """What is neither sysbox nor free of charge."""
    return sorted(
        name
        for name in names
        if name.partition(".")[0] not in ALLOWED | INTERPRETER and not name.startswith("sysbox")
    )


def installed() -> Path:
    """The package as it was installed, with its C extension."""
    assert sysbox.__file__
    return Path(sysbox.__file__).parent


def test_all_hot_modules_together() -> None:
    """The same by running them: what one module drags in through another shows here."""
    names = ", ".join(HOT)
    done = run_isolated(
        "-c", f"import sys; sys.path.append({str(installed().parent)!r}); import {names}"
    )
    assert done.returncode == 0, done.stderr
    assert not extra(imported(done.stderr))


def test_a_hot_verb_from_end_to_end() -> None:
    launcher = str(Path(sys.executable).parent / "sysbox")
    done = run_isolated(str(installed() / "_main.py"), launcher, "version")
    assert done.returncode == 0, done.stderr
    assert "sysbox.cli.commands.version" in imported(done.stderr)
    assert not extra(imported(done.stderr))
