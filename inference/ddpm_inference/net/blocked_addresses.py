"""SSRF block list: link-local and cloud metadata addresses.

A run connects from inside a cluster, where these addresses lead to the node itself or to the cloud's metadata
service, which hands out the node's credentials. Every connection that a user's URI leads to is checked here after
its host name was resolved.
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
"""Unspecified and link-local networks, and the metadata services of AWS, Google, Azure, Alibaba and Oracle."""

_NAT64 = tuple(map(ip_network, ("64:ff9b::/96", "64:ff9b:1::/48")))
"""IPv6 networks whose last 32 bits are the IPv4 address that a NAT64 gateway connects to (RFC 6052, RFC 8215)."""


class BlockedAddress(Exception):
    """A connection was not opened, because its address is blocked. The message names the address and the remedy."""


def refuse_blocked(address: str, remedy: str) -> None:
    """Checks an IP address before a connection to it is opened.

    Args:
        address: IPv4 or IPv6, a zone (``%eth0``) included or not.
        remedy: what the user should correct; ends the error message.

    Raises:
        BlockedAddress: if the address is on the block list.
    """
    if is_blocked(address):
        raise BlockedAddress(f"{address} is a link-local or cloud metadata address, which is blocked; {remedy}")


def is_blocked(address: str) -> bool:
    """Returns whether an IP address, or an IPv4 address embedded in it, is on the block list."""
    parsed = ip_address(address.partition("%")[0])
    destination = (_embedded_ipv4(parsed) if isinstance(parsed, IPv6Address) else None) or parsed
    return any(destination in network for network in BLOCKED)


def _embedded_ipv4(address: IPv6Address) -> IPv4Address | None:
    """Returns the IPv4 address that a gateway would connect to for an IPv6 address, if it embeds one."""
    if any(address in network for network in _NAT64):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
