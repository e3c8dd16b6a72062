"""Single values of the command line: each is a value, or one clear line about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inputs import ANY_TEXT, Refused, outcome, words

from sysbox.cli.commands import top
from sysbox.image import changes, reference
from sysbox.image.model import ImageConfig
from sysbox.netns import subnets
from sysbox.parse import addresses, common, filters, limits, secrets, service, storage, time, userns
from sysbox.parse.bandwidth import parse_bandwidth
from sysbox.parse.network import (
    check_hostname,
    check_link,
    parse_add_host,
    parse_endpoint,
    parse_host_port,
    parse_ip,
    parse_mac,
    parse_port,
)
from sysbox.parse.network_options import BY_DRIVER, parse_options
from sysbox.parse.process import (
    parse_env,
    parse_env_file,
    parse_groups,
    parse_label,
    parse_umask,
    parse_user,
    read_lines,
)
from sysbox.parse.security import parse_cap, parse_security_opts, parse_sysctl, parse_ulimit
from sysbox.run import detach_keys
from sysbox.spec import Mount, SecretUse

OPTIONS = sorted({name for known in BY_DRIVER.values() for name in known})
SIZES = "k m g t p b kib mb : / /dev/sda . , -"
SECRET = "name source= ,type= mount env ,target= /a .. ,uid= ,gid= ,mode= 0400"
MOUNTS = (
    "type= bind volume tmpfs , src= source= dst= target= = /a /a/b .. : readonly ro true false 1 0 z nocopy "
    'bind-propagation= rshared volume-nocopy tmpfs-size= tmpfs-mode= uid= size= mode= 64m 10% nr_inodes= "'
    " idmap idmap= noidmap U chown= uids= gids= ; # @ - 0-1-10 4294967294"
)
PARSERS: dict[str, tuple[Callable[..., Any], str]] = {
    "size": (common.parse_size, SIZES),
    "rate": (common.parse_bytes_rate, SIZES),
    "cpus": (common.parse_cpus, SIZES),
    "cpuset": (common.parse_cpuset, "- , 0-1"),
    "ip": (parse_ip, ". : 10.0.0.1 :: fe80 % [ ]"),
    "bandwidth": (parse_bandwidth, "up= down= , 10 1.5 mbit kbps kibit bit . unset"),
    "filtered-network": (addresses.parse_network, ". : / 10.0.0.1 :: fe80 any localhost 8 128 33 -"),
    "port": (parse_port, ". : - / tcp udp sctp 80 8080 127.0.0.1 [::1] [ ] 0"),
    "host port": (parse_host_port, ". : - / tcp udp sctp 80 8080 127.0.0.1 [::1] [ ] 0"),
    "ulimit": (parse_ulimit, "nofile nproc = : unlimited -1 stack"),
    "env": (parse_env, "A = B PATH HOME"),
    "label": (parse_label, "a = b ."),
    "cap": (parse_cap, "CAP_ sys-admin ALL net_raw - _"),
    "name": (common.check_name, "a b . - _ /"),
    "hostname": (check_hostname, "a b . - _"),
    "user": (parse_user, "root : 0 1000 _ $ -"),
    "umask": (parse_umask, "0 22 077 8 - o"),
    "groups": (lambda text, flag: parse_groups(text.split(","), flag), "keep-groups , 5 adm : -"),
    "mode": (lambda text, flag: common.parse_mode(text, flag, ("host",)), "host container: ns: /a : x"),
    "userns": (userns.parse_userns,
               "auto keep-id : size= uidmapping= gid= , 0 1 65536 @ 4294967295 host nomap container: ns: /a"),
    "id-maps": (lambda text, _: userns.parse_maps(text.split(), []), "+ u g 0 : 1 @ 1000 65536 4294967294"),
    "sysctl": (parse_sysctl, "net. ipv4. = kernel.shm / . 1 fs.mqueue."),
    "network": (parse_endpoint, "web : name= ip= ip6= mac= alias= , 10.0.0.1 fd00::1 02: a ="),
    "mac": (parse_mac, "02 : 00 ff - g 1"),
    "network-option": (lambda text, flag: parse_options([text], flag),
                       " ".join(f"{name}=" for name in OPTIONS) + " true strict 0 1400 br0 nat 10.0.0.1 ="),
    "subnet": (lambda text, _: subnets.split(text), "10.0.0.0 fd00:: / 8 64 130 0 : ."),
    "add-host": (parse_add_host, "a : 10.0.0.1 host-gateway :: = [ ]"),
    "device-number": (lambda text, flag: limits.parse_device_number(text, flag, 1, 1000), SIZES),
    "class-id": (limits.parse_class_id, "0x : ffff 1 10 x"),
    "huge-pages": (limits.parse_huge_pages, "2MB 1GB = 64m k g"),
    "pids": (limits.parse_pids, "-1 0"),
    "link": (check_link, "br0 . - _ all lo"),
    "driver": (service.parse_driver, "journald json-file none"),
    "device-rule": (limits.parse_device_rule, "a b c * : rwm r char-pts block- 1 3"),
    "duration": (time.parse_duration, "s ms us µs m h d w min . 10"),
    "seconds": (time.parse_seconds, "s ms m h -1 ."),
    "time-offset": (time.parse_time_offset, "monotonic boottime = , - + s 1 h"),
    "moment": (lambda text, flag: time.parse_moment(text, flag, 1e9),
               "2026-11-22 T 20:00:00 Z +01:00 . s m h - : 10"),
    "signal": (time.parse_signal, "SIG TERM KILL RTMIN RTMAX + - 1 _BLOCK"),
    "restart": (service.parse_restart, "on-failure : always no unless-stopped"),
    "volume": (storage.parse_mount_v, MOUNTS),
    "mount": (storage.parse_mount, MOUNTS),
    "tmpfs": (storage.parse_tmpfs, MOUNTS),
    "secret": (secrets.parse_secret, SECRET),
    "device": (storage.parse_device, "/dev/null : rwm r /dev/x w"),
    "keys": (detach_keys.parse, "ctrl- , a @ [ \\ ] p q"),
    "filter": (lambda text, _: filters.split(text, ("a", "label")), "a = label != b"),
    "reference": (lambda text, _: reference.parse(text),
                  "docker.io / busybox : latest @ sha256: abcdef0123456789 localhost:5000 . - _ A [ ]"),
    "security-opt": (lambda text, flag: parse_security_opts([text], flag),
                     "no-new-privileges = : true seccomp unconfined label disable unmask landlock on off"),
    "covers": (lambda text, flag: parse_security_opts([text], flag),
               "mask= unmask= proc-opts= ALL /proc /a : * [ ] - ^ \\ hidepid= 2 gid= 5 subset= pid , .."),
    "log-opt": (lambda text, _: service.parse_logging("json-file", [text]),
                "max-size max-file = 10m -1"),
    "health": (lambda text, _: service.parse_health(
        {"cmd": "x", "interval": text, "timeout": text, "start_period": text, "start_interval": None,
         "retries": text, "on_failure": "kill", "startup_cmd": "y", "startup_interval": text,
         "startup_success": text, "max_log_count": text}, disabled=False), "s ms 1 m"),
    "change": (lambda text, _: changes.apply(ImageConfig(), [text]),
               'CMD ENTRYPOINT ENV WORKDIR USER LABEL EXPOSE VOLUME STOPSIGNAL [ ] " , = a /b 80/tcp \\'),
}  # fmt: skip


@pytest.mark.parametrize("name", PARSERS)
def test_a_value_or_one_line(name: str) -> None:
    parser, vocabulary = PARSERS[name]

    @given(st.one_of(words(vocabulary), words(vocabulary), ANY_TEXT))
    def check(text: str) -> None:
        outcome(lambda: parser(text, "--flag"))

    check()


@given(st.one_of(words("docker.io / busybox : latest @ sha256: localhost:5000 . - _ a"), ANY_TEXT))
def test_a_reference_is_what_it_is_written_as(text: str) -> None:
    found = outcome(lambda: reference.parse(text))
    if found is not Refused:
        assert reference.parse(found.full()) == found
        assert reference.parse(found.familiar()) == found


@given(words(MOUNTS))
def test_a_mount_stays_in_its_root(text: str) -> None:
    for parser in (
        storage.parse_mount_v,
        storage.parse_mount,
        storage.parse_tmpfs,
    ):
        found = outcome(lambda parser=parser: parser(text, "--flag"))
        if found is not Refused:
            assert isinstance(found, Mount)
            assert found.target.startswith("/")
            assert found.target != "/"
            assert not {"", ".", ".."} & set(found.target.split("/")[1:])
            assert "\0" not in found.target + found.source
            assert Mount.from_data(found.to_data()) == found


@given(st.one_of(st.binary(max_size=200), words("A = # B \n \r\n \ufeff PATH").map(
    lambda text: text.encode("utf-8", "surrogateescape"))))  # fmt: skip
def test_env_and_label_files(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = Path(tmp_path_factory.getbasetemp(), "file")
    path.write_bytes(data)
    found = outcome(lambda: parse_env_file(str(path), "--env-file"))
    if found is not Refused:
        for one in found:
            name, equals, _ = one.partition("=")
            assert name
            assert equals
            assert "\0" not in one
            assert "\n" not in one
    outcome(
        lambda: [
            parse_label(one, "--label-file") for one in read_lines(str(path), "x", "KEY=VALUE")
        ]
    )


@given(ANY_TEXT)
def test_accounts_of_the_host(text: str) -> None:
    top._users(text)


@given(words(SECRET))
def test_a_secret_stays_in_its_place(text: str) -> None:
    found = outcome(lambda: secrets.parse_secret(text, "--secret"))
    if found is not Refused:
        assert "/" not in found.name
        assert SecretUse.from_data(found.to_data()) == found
        if found.kind == "mount":
            assert not {"", ".", ".."} & set(found.target.split("/")[1:])
            assert found.target not in ("/", "/run/secrets")
