"""Attacks by input: archives, names, templates, profiles, descriptors."""

from __future__ import annotations

import json
import tarfile
import time

from attacked import LARGE, LATE, LIMIT, Attacked, Largest, attack, last_line, verdict
from peers import IMAGE


@attack
def pax_headers(engine: Attacked) -> str:
    """`import` of a small gzip with 900 pax headers of 1 MB"""
    archive = engine.place / "pax.tar.gz"
    with tarfile.open(archive, "w:gz", format=tarfile.PAX_FORMAT, compresslevel=9) as made:
        for number in range(900):
            entry = tarfile.TarInfo("file")
            entry.pax_headers = {f"SCHILY.xattr.user.a{number}": "x" * (1 << 20)}
            made.addfile(entry)
    with Largest() as largest:
        begun = engine.begin("import", archive, "pax:1")
        deadline = time.monotonic() + LIMIT
        while begun.poll() is None and time.monotonic() < deadline:
            largest.look()
            time.sleep(0.05)
        begun.kill()
        words = last_line(begun.communicate()[1])
    engine("rmi", "-f", "pax:1")
    how = "taken" if begun.returncode == 0 else f"refused: {words}"
    return verdict(largest.found > LARGE, f"{largest.found >> 10} MiB at most; {how}")


@attack
def control_sequences(engine: Attacked) -> str:
    """control sequences in a command, seen by `top` and `ps`"""
    argument = "$(printf 'x\\033]0;owned\\007y')"
    script = f'exec sh -c "while :; do sleep 1; done" "{argument}"'
    with engine.container(command=("sh", "-c", script)) as name:
        time.sleep(0.5)
        shown = engine("top", name).stdout + engine("ps", "--no-trunc").stdout
    printed = "\033" in shown
    return verdict(printed, f"escape sequences are {'printed' if printed else 'not printed'}")


@attack
def hostile_passwd(engine: Attacked) -> str:
    """`--user name` where the image's /etc/passwd is a link to /proc/kmsg"""
    with engine.container("--user", "0") as name:
        engine.inside(name, "rm /etc/passwd; ln -s /proc/kmsg /etc/passwd")
        begun = time.monotonic()
        done = engine("exec", "--user", "nobody", name, "true", limit=20)
        took = time.monotonic() - begun
    return verdict(
        took > 10, f"status {done.returncode} after {took:.1f} s: {last_line(done.stderr)}"
    )


@attack
def templates(engine: Attacked) -> str:
    """`inspect --format` with `printf "%999999999d"`"""
    with engine.container() as name:
        done = engine("inspect", "--format", '{{printf "%999999999d" 1 | len}}', name, limit=30)
    return verdict(
        done.returncode == LATE, f"status {done.returncode}: {last_line(done.stdout + done.stderr)}"
    )


@attack
def closed_input(engine: Attacked) -> str:
    """a standard input that is closed when the command starts"""
    words = ["exec timeout 20", *engine.command, "run", "-i", "--rm", IMAGE, "head", "-c", "40"]
    done = engine.shell(" ".join([*words, "<&-"]))
    hangs = done.returncode == LATE
    how = "it hangs" if hangs else f"the container reads {len(done.stdout)} bytes"
    return verdict(done.stdout or hangs, how)


@attack
def long_path(engine: Attacked) -> str:
    """a working directory of 2,000 components"""
    done = engine("run", "--rm", "-w", "/a" * 2000, IMAGE, "true")
    how = f"status {done.returncode}: {last_line(done.stderr)}" if done.returncode else "taken"
    return verdict(done.returncode == LATE, how)


@attack
def deep_template(engine: Attacked) -> str:
    """`inspect --format` with 5,000 parentheses"""
    with engine.container() as name:
        text = "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}"
        done = engine("inspect", "--format", text, name, limit=30)
    return verdict(done.returncode == LATE, f"status {done.returncode}: {last_line(done.stderr)}")


@attack
def endless_range(engine: Attacked) -> str:
    """`inspect --format` with a range over a range over a range of the environment, 12 deep"""
    with engine.container(*(f"-e=A{number}=x" for number in range(30))) as name:
        text = "{{range .Config.Env}}" * 12 + "x" + "{{end}}" * 12
        with Largest() as largest:
            begun = engine.begin("inspect", "--format", text.replace(".Config", "$.Config"), name)
            deadline = time.monotonic() + 15
            while begun.poll() is None and time.monotonic() < deadline:
                largest.look()
                time.sleep(0.2)
            ended = begun.poll() is not None
            begun.kill()
            words = last_line(begun.communicate()[1])
    how = f"status {begun.returncode}: {words}" if ended else "did not end in 15 s"
    return verdict(not ended, f"{how}; {largest.found >> 10} MiB at most")


@attack
def long_profile(engine: Attacked) -> str:
    """a seccomp profile with 1,500 rules of two arguments for one call"""
    rules = [
        {
            "names": ["personality"],
            "action": "SCMP_ACT_ERRNO",
            "args": [
                {"index": 0, "value": number, "op": "SCMP_CMP_EQ"},
                {"index": 1, "value": number, "op": "SCMP_CMP_EQ"},
            ],
        }
        for number in range(1500)
    ]
    profile = engine.place / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    begun = time.monotonic()
    done = engine("run", "--rm", "--security-opt", f"seccomp={profile}", IMAGE, "true", limit=60)
    took = time.monotonic() - begun
    how = "taken" if not done.returncode else f"status {done.returncode}: {last_line(done.stderr)}"
    return verdict(took > 30, f"{how}, after {took:.0f} s")
