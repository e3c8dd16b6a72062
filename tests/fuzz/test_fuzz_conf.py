"""sysbox.conf: any text is settings that a container can be made with, or one clear line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from inputs import Refused, outcome, words

from sysbox.conf import files, settings
from sysbox.netns import subnets, topology
from sysbox.spec import ContainerSpec

TEXTS = st.lists(
    words(
        "[Network]\n [Log]\n [Container]\n Bridge= Subnet= Driver= RateLimit= RateBurst= PidsLimit= \n #"
        " UserNS= auto host 10.0.0.0/8 br0 journald json-file none 5 -1 \\\n",
        size=12,
    ),
    max_size=3,
)


@given(TEXTS)
def test_any_files(texts: list[str]) -> None:
    loaded = outcome(lambda: files.merge(("x", text) for text in texts))
    if loaded is Refused:
        return
    made = settings.with_defaults(ContainerSpec(image="x"), loaded.settings)
    assert ContainerSpec.from_data(made.to_data()) == made
    network = topology.network_of(made.bridge, "")
    assert subnets.number_of(network.gateway)
    assert len(network.bridge) < 16
