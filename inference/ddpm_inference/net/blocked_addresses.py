"""Addresses that nobody's samples or checkpoints are at, whatever name led there.

A run stands inside of a cluster, where addresses mean more than outside: every machine has some of its own, such
as a cloud's metadata service with the node's credentials.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

BLOCKED = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "169.254.0.0/16",
            "100.100.100.200/32",
            "168.63.129.16/32",
            "192.0.0.192/32",
            "::/128",
            "fe80::/10",
            "fd00:ec2::/32",
            "fd20:ce::254/128",
        ),
    )
)
"""This machine's own links, and the metadata services of AWS, Google, Azure, Alibaba, Oracle and their like."""

_TRANSLATED = tuple(map(ip_network, ("64:ff9b::/96", "64:ff9b:1::/48")))
"""IPv6 addresses whose last 32 bits are the IPv4 address that a NAT64 gateway connects to (RFC 6052, RFC 8215)."""


class BlockedAddress(Exception):
    """A connection that is not made. The message says to which address."""


def refuse_blocked(address: str, instead: str) -> None:
    """Lets through an IP address that samples or checkpoints could be at.

    Args:
        instead: what is not there, and what to do.

    Raises:
        ClosedAddress: for any other.
    """
    if is_blocked(address):
        raise BlockedAddress(
            f"{address} is an address of this machine's own or of a cloud's metadata service, where no {instead}"
        )


def is_blocked(address: str) -> bool:
    """Whether an IP address is none that samples or checkpoints could be at."""
    found = ip_address(address.partition("%")[0])
    leads_to = (_carried(found) if isinstance(found, IPv6Address) else None) or found
    return any(leads_to in network for network in BLOCKED)


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address carries, and a gateway would connect to."""
    if any(address in network for network in _TRANSLATED):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
