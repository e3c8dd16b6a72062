"""What registries send and administrators write: challenges, URLs, indexes, pages, registries.conf."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from inputs import ANY_TEXT, JSON, Refused, nearly, outcome

from sysbox.image.registry import (
    answers,
    challenges,
    conf_files,
    credentials,
    media,
    platform,
    proxies,
)
from sysbox.image.registry import url as urls
from sysbox.image.registry.endpoint import of_location

HEADER = st.text('Basic Bearer realm="https://a/b",scope=\\\t \x7f\xe4', max_size=60)
DIGEST = "sha256:" + "ab" * 32
INDEX = {
    "schemaVersion": 2,
    "manifests": [
        {
            "mediaType": media.MANIFESTS[0], "size": 1, "digest": DIGEST,
            "platform": {"os": "linux", "architecture": "arm", "variant": "v7"},
            "annotations": {"a": "b"},
        }
    ],
}  # fmt: skip


@given(st.lists(HEADER, max_size=3))
def test_challenges_are_read_or_refused(headers: list[str]) -> None:
    found = outcome(lambda: challenges.parse(headers, "x"))
    if found is not Refused:
        assert all(one.scheme for one in found)


@given(
    st.one_of(ANY_TEXT, st.text("htps:/@.?#[]%\\a1 \t", max_size=30)),
    st.sampled_from(["http://a/", "https://[::1]:5/x?y"]),
)
def test_a_url_means_what_it_says(text: str, base: str) -> None:
    found = outcome(lambda: urls.parse(text, "x", urls.parse(base, "x")))
    if found is not Refused:
        again = urls.parse(str(found), "x")
        assert again == found
        assert found.scheme in ("http", "https")
        assert "@" not in found.authority()
        assert found.target.startswith("/")


@given(st.one_of(nearly([INDEX]), JSON))
def test_an_index_is_read_or_refused(document: Any) -> None:
    data = json.dumps(document).encode()
    found = outcome(lambda: platform.parse_index(data))
    if found is not Refused:
        outcome(lambda: platform.choose(found, "linux", "amd64"))
    outcome(lambda: media.type_of(data, "", "x"))
    outcome(lambda: answers.tags(data, "x"))


@given(st.text("/arm64linux.v0123456789 ", max_size=20))
def test_platforms(text: str) -> None:
    found = outcome(lambda: platform.parse(text))
    if found is not Refused:
        assert platform.runnable(found)[0] == found
        assert len(platform.runnable(found)) < 1000


@given(
    st.one_of(
        ANY_TEXT, st.text('[registry]\n="a.b"location prefix insecure mirror {}', max_size=80)
    )
)
def test_registries_conf_is_read_or_refused(text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    table = outcome(lambda: conf_files._parse(data, "x"))
    if table is not Refused:
        outcome(lambda: conf_files._rules(table, "x"))
        outcome(lambda: conf_files._aliases(table, "x"))


@given(nearly([{"auths": {"a.b": {"auth": "YTpi", "identitytoken": "x"}}, "credHelpers": {}}]))
def test_credentials_are_read_or_refused(document: Any) -> None:
    def read() -> object:
        entries = credentials.auths(document, "x")
        return [credentials._decoded(entry, key, "x") for key, entry in entries.items()]

    if type(document) is dict:
        outcome(read)


@given(ANY_TEXT)
def test_names_of_registries(text: str) -> None:
    outcome(lambda: credentials.registry_of(text))
    outcome(lambda: of_location(text, "x"))
    assert proxies.excluded(urls.parse("https://a.b/", "x"), text) in (True, False)
