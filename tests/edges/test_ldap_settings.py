"""Servers of a directory, refused in the settings where nobody could ask them."""

import pytest
from pydantic import ValidationError

from gateway.security_settings import LDAPSettings


@pytest.mark.parametrize("server", ["ldaps://ldap.example", "ldaps://ldap:1636", "ldaps://[fd00::1]:636", "ldaps://l/"])
def test_a_server_has_a_host_and_may_have_a_port(server: str) -> None:
    assert LDAPSettings(servers=(server,), bind="anonymous").servers == (server,)


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("ldaps://:636", "names no host"),
        ("ldaps://", "names no host"),
        ("ldaps://ldap:abc", "no port behind the colon"),
        ("ldaps://ldap:70000", "no port behind the colon"),
        ("https://ldap", "no ldap:// or ldaps:// address"),
        ("ldap.example", "no ldap:// or ldaps:// address"),
    ],
)
def test_what_is_no_server_is_refused_in_words(server: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        LDAPSettings(servers=(server,), bind="anonymous")
