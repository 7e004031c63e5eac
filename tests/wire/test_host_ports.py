"""Hosts with and without a port, and which of them are whatever machine reads them."""

import pytest

from gateway.wire.host_ports import host_and_port, is_loopback


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("ldap", ("ldap", 389)),
        ("ldap.hosp.example:1389", ("ldap.hosp.example", 1389)),
        ("fd00::1", ("fd00::1", 389)),
        ("[fd00::1]", ("fd00::1", 389)),
        ("[fd00::1]:636", ("fd00::1", 636)),
    ],
)
def test_a_host_is_read_with_its_port_or_the_usual_one(text: str, read: tuple[str, int]) -> None:
    assert host_and_port(text, 389) == read


@pytest.mark.parametrize("text", ["", ":636", "[::1", "[]", "[::1]636", "a b", "h/x"])
def test_what_names_no_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names no host"):
        host_and_port(text, 389)


@pytest.mark.parametrize("text", ["h:", "h:abc", "h:0", "h:65536", "h:-1", "h:１", "[::1]:"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no port behind the colon"):
        host_and_port(text, 389)


@pytest.mark.parametrize(
    ("host", "is_so"),
    [
        ("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("LOCALHOST.", True),
        ("localhost.localdomain", True), ("a.localhost", True), ("10.1.2.3", False), ("gw.hosp.example", False),
        ("localhosts.example", False),
    ],
)  # fmt: skip
def test_loopback_is_known_by_address_and_name(host: str, is_so: bool) -> None:
    assert is_loopback(host) is is_so
