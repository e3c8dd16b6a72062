#!/bin/bash
# Usage: tools/test-network.sh
#
# Makes the network that the tests expect, on a host without one: an uplink, and at its other end the network
# namespace "outside", which has a second address behind it.
set -euo pipefail

ip netns add outside
ip link add uplink0 type veth peer name eth0 netns outside
ip address add 192.0.2.2/24 dev uplink0
ip link set uplink0 up
ip -n outside address add 192.0.2.1/24 dev eth0
ip -n outside address add 198.51.100.1/32 dev lo
ip -n outside link set lo up
ip -n outside link set eth0 up
ip route add default via 192.0.2.1
