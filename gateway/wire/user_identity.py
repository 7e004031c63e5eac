"""User Identity Negotiation on the wire (PS3.7 D.3.3.7): the sub-item that names a user, and the one that answers it.

What may live here: their bytes. What an identity proves is decided elsewhere; nothing here looks into it. A passcode
or token never shows in a representation.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum

USER_IDENTITY = 0x58
"""The sub-item of an A-ASSOCIATE-RQ (PS3.7 Table D.3-14)."""
USER_IDENTITY_ANSWER = 0x59
"""The sub-item of an A-ASSOCIATE-AC (PS3.7 Table D.3-15)."""

RESPONSE_BYTES_MAX = 65_533
"""The longest server response that its sub-item has room for."""

_FIXED = struct.Struct(">BBH")
_LENGTH = struct.Struct(">H")
_ANSWER = struct.Struct(">BxHH")


class IdentityKind(IntEnum):
    """What an identity consists of (PS3.7 Table D.3-14)."""

    NAME = 1
    PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JWT = 5


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """The user that a requester names. `kind` is an `IdentityKind`, or a number that the standard does not know.

    `primary` holds the name in UTF-8, the ticket, assertion or token; `secondary` the passcode where `kind` is
    PASSCODE. A positive response is sent only where it was requested and the identity proved.
    """

    kind: int
    response_requested: bool
    primary: bytes = field(repr=False)
    secondary: bytes = field(default=b"", repr=False)


def read_user_identity(value: bytes) -> UserIdentity:
    """The sub-item 58H, without its header of four bytes; raises ValueError or struct.error where it is malformed."""
    kind, response_requested, length = _FIXED.unpack_from(value)
    primary = value[_FIXED.size : _FIXED.size + length]
    (second_length,) = _LENGTH.unpack_from(value, _FIXED.size + length)
    secondary = value[_FIXED.size + length + _LENGTH.size :]
    if len(secondary) != second_length:
        raise ValueError("user identity does not fit its item")
    return UserIdentity(kind, response_requested == 1, primary, secondary)


def response_item(server_response: bytes = b"") -> bytes:
    """The sub-item 59H, whole. The response is empty for names, passcodes and tokens (PS3.7 Table D.3-15).

    Raises ValueError for one longer than RESPONSE_BYTES_MAX.
    """
    length = len(server_response)
    if length > RESPONSE_BYTES_MAX:
        raise ValueError("the server response is too long for its item")
    return _ANSWER.pack(USER_IDENTITY_ANSWER, length + _LENGTH.size, length) + server_response
