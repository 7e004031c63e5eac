"""`host`, `host:port` and `[address]:port`, as people write whom to ask."""

import ipaddress
import re

PORT_MAX = 65535
_HOST = re.compile(r"[^\s\[\]/]+")


def is_loopback(host: str) -> bool:
    """Whether it is, wherever it is read, the machine of whoever reads it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        labels = host.casefold().rstrip(".").split(".")
        return labels[-1] == "localhost" or labels[0] in _LOCAL_NAMES


_LOCAL_NAMES = frozenset({"localhost", "ip6-localhost", "ip6-loopback"})
"""What files of hosts call it, with whichever domain behind."""


def host_and_port(text: str, default: int) -> tuple[str, int]:
    """Host and port; an IPv6 address stands in brackets where a port follows. Raises ValueError, in words."""
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        wrong = not closed or (rest and not rest.startswith(":"))
        port = rest.removeprefix(":")
        without_port = not rest
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        wrong = without_port = False
    else:  # a name, or an IPv6 address without brackets
        host, port, wrong, without_port = text, "", False, True
    if wrong or not _HOST.fullmatch(host):
        raise ValueError(f"{text!r} names no host: write host, host:port or [address]:port")
    if without_port:
        return host, default
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= PORT_MAX):
        raise ValueError(f"{text!r} has no port behind the colon: ports are 1 to {PORT_MAX}")
    return host, int(port)
