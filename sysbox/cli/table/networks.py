"""The flags of the `network` verbs, with docker's and podman's meaning."""

from __future__ import annotations

from sysbox.cli.table.options import Option, many, switch, value


def create_options() -> tuple[Option, ...]:
    return (
        switch("--attachable", "Accepted for docker's scripts: containers can always be connected"),
        switch("--disable-dns", "Containers do not find each other by name"),
        many("--dns", "ADDRESS", "DNS server for names of no container; the host's by default"),
        value(
            "-d --driver", "NAME", "bridge (the default), macvlan, ipvlan or none",
            choices="bridge macvlan ipvlan none",
        ),
        many("--gateway", "ADDRESS", "The gateway: the bridge's address; the first of the subnet by default"),
        value("--interface-name", "LINK", "Name of the bridge on the host, or of the parent"),
        switch("--ignore", "Do nothing if a network has the name already"),
        switch("--internal", "Nothing leads out of the network"),
        many("--ip-range", "SUBNET", "The part of the subnet that addresses are chosen from"),
        value("--ipam-driver", "NAME", "Who gives out addresses: default, which is sysbox"),
        switch("--ipv4", "Accepted for docker's scripts: a network has an IPv4 subnet", on=True),
        switch("--ipv6", "Add an IPv6 subnet; --subnet chooses it"),
        many("--label", "KEY=VALUE", "Attach a label"),
        many(
            "-o --opt", "NAME=VALUE",
            "mtu, icc, isolate, host_access, masquerade, gateway_mode_ipv6, host_binding_ipv4, nic, vlan of "
            "bridges; mtu, parent, mode of macvlan and ipvlan; and docker's names of them",
            choices="mtu= icc= isolate= host_access= masquerade= gateway_mode_ipv6= host_binding_ipv4= nic= "
            "vlan= parent= mode=",
        ),
        many("--route", "DESTINATION,GATEWAY[,METRIC]", "A further route of the containers"),
        value("--scope", "SCOPE", "Accepted for docker's scripts: local is the only one"),
        many("--subnet", "SUBNET", "A subnet in CIDR form; one of IPv4 and one of IPv6"),
    )  # fmt: skip


def ls_options() -> tuple[Option, ...]:
    return (
        many(
            "-f --filter", "KEY=VALUE",
            "Only matching ones: dangling, driver, id, label, name, scope, type",
        ),
        value("--format", "TEMPLATE", "`json`, `table TEMPLATE`, or a Go template"),
        switch("--no-trunc", "Do not truncate ids"),
        switch("-q --quiet", "Print ids only"),
    )  # fmt: skip


def rm_options() -> tuple[Option, ...]:
    return (switch("-f --force", "Ignore missing ones, and remove damaged definitions"),)


def connect_options() -> tuple[Option, ...]:
    return (
        many("--alias", "NAME", "Further name of the container on the network"),
        value(
            "--interface-name",
            "LINK",
            "Name of the link in the container; eth0, eth1, ... by default",
        ),
        value("--ip", "ADDRESS", "IPv4 address"),
        value("--ip6", "ADDRESS", "IPv6 address"),
        value("--mac-address", "MAC", "MAC address of the link"),
    )


def disconnect_options() -> tuple[Option, ...]:
    return (switch("-f --force", "Ignore a container or network that does not exist"),)


def update_options() -> tuple[Option, ...]:
    return (
        many("--dns-add", "ADDRESS", "Add a DNS server for names of no container"),
        many("--dns-drop", "ADDRESS", "Remove one of these"),
        many("--label", "KEY=VALUE", "Set a label"),
        many("--label-rm", "KEY", "Remove a label"),
    )
