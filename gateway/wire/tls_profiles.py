"""The TLS profiles of PS3.15 Annex B by which listeners and clients of ours shake hands, as one table.

What may live here: versions and suites by their names, and why some are missing. No socket and no `ssl`: `edges.tls`
makes contexts of these rows, and the reference page and the tests are made from them too.

The suites of TLS 1.3 are not a profile's to choose: Python's `ssl` cannot, so every profile with TLS 1.3 offers the
three that OpenSSL has on by default. B.12 and B.13 list two more, with AES CCM, which OpenSSL has off; every peer of
TLS 1.3 has TLS_AES_128_GCM_SHA256 (RFC 8446 9.1), so no handshake fails for it.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

RSA_BITS_MIN = 2_048
"""RFC 9325 4.5, and what OpenSSL's security level 2 refuses."""


class Version(IntEnum):
    """Protocol versions in their order, numbered as on the wire."""

    TLS_1_0 = 0x0301
    TLS_1_1 = 0x0302
    TLS_1_2 = 0x0303
    TLS_1_3 = 0x0304

    def __str__(self) -> str:
        return f"TLS 1.{self.value - 0x0301}"


class Needs(StrEnum):
    """What key our certificate must have for a suite to be chosen."""

    RSA = "RSA"
    EC = "EC"


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite of TLS 1.2 or older. `since` is the oldest version that has it."""

    iana: str
    openssl: str
    needs: Needs
    since: Version = Version.TLS_1_2


_ECDHE_GCM = (
    Suite("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384", Needs.EC),
    Suite("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "ECDHE-RSA-AES256-GCM-SHA384", Needs.RSA),
    Suite("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256", Needs.EC),
    Suite("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "ECDHE-RSA-AES128-GCM-SHA256", Needs.RSA),
)
_DHE_GCM = (
    Suite("TLS_DHE_RSA_WITH_AES_256_GCM_SHA384", "DHE-RSA-AES256-GCM-SHA384", Needs.RSA),
    Suite("TLS_DHE_RSA_WITH_AES_128_GCM_SHA256", "DHE-RSA-AES128-GCM-SHA256", Needs.RSA),
)
_CHACHA20 = (
    Suite("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", Needs.EC),
    Suite("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", "ECDHE-RSA-CHACHA20-POLY1305", Needs.RSA),
)
_CCM = (
    Suite("TLS_ECDHE_ECDSA_WITH_AES_256_CCM", "ECDHE-ECDSA-AES256-CCM", Needs.EC),
    Suite("TLS_ECDHE_ECDSA_WITH_AES_128_CCM", "ECDHE-ECDSA-AES128-CCM", Needs.EC),
)
_ECDHE_CBC = (
    Suite("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA", "ECDHE-ECDSA-AES256-SHA", Needs.EC, Version.TLS_1_0),
    Suite("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", "ECDHE-RSA-AES256-SHA", Needs.RSA, Version.TLS_1_0),
    Suite("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA", "ECDHE-ECDSA-AES128-SHA", Needs.EC, Version.TLS_1_0),
    Suite("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "ECDHE-RSA-AES128-SHA", Needs.RSA, Version.TLS_1_0),
)
_RSA_CBC = (
    Suite("TLS_RSA_WITH_AES_256_CBC_SHA", "AES256-SHA", Needs.RSA, Version.TLS_1_0),
    Suite("TLS_RSA_WITH_AES_128_CBC_SHA", "AES128-SHA", Needs.RSA, Version.TLS_1_0),
)

TLS_1_3_SUITES = ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256")
"""What every profile with TLS 1.3 offers in it, by the names that IANA and OpenSSL share."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What is shaken hands by. `suites` are in our order, which goes before the caller's."""

    name: str
    """As the configuration has it."""
    title: str
    section: str
    """Of PS3.15."""
    standing: str
    """What the standard says of it now."""
    oldest: Version
    newest: Version
    suites: tuple[Suite, ...]
    security_level: int
    """OpenSSL's: 2 refuses keys below RSA 2048 or EC 224 and signatures by SHA-1, also in certificates of peers; 0
    refuses nothing, and TLS before 1.2, which signs by SHA-1, works with no other."""
    when: str
    """For whom it is."""
    left_out: str = ""
    """What the standard lists or allows and we do not offer, and why."""

    @property
    def outdated(self) -> bool:
        """Whether it offers what RFC 8996 and 9325 forbid: versions before TLS 1.2."""
        return self.oldest < Version.TLS_1_2

    def suites_of(self, version: Version) -> tuple[str, ...]:
        """IANA's names of what is offered in this version; none where the version is not."""
        if not self.oldest <= version <= self.newest:
            return ()
        if version is Version.TLS_1_3:
            return TLS_1_3_SUITES
        return tuple(suite.iana for suite in self.suites if suite.since <= version)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "bcp195", "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile", "B.12", "current",
            Version.TLS_1_2, Version.TLS_1_3, _ECDHE_GCM, 2,
            "the default: every device of the last ten years",
        ),
        Profile(
            "bcp195-modified", "Modified BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile", "B.13",
            "current", Version.TLS_1_2, Version.TLS_1_3, (*_ECDHE_GCM, *_CHACHA20, *_CCM), 2,
            "where a policy asks for it: only what it lists may be offered",
            "ECDHE with CAMELLIA GCM, which OpenSSL does not have; AES CCM_8, whose tags of 64 bits RFC 9325 4.2 "
            "advises against; the two AES CCM suites of TLS 1.3, which Python's ssl cannot turn on",
        ),
        Profile(
            "non-downgrading", "Non-Downgrading BCP 195 TLS Secure Transport Connection Profile", "B.10", "retired",
            Version.TLS_1_2, Version.TLS_1_3, (*_ECDHE_GCM, *_DHE_GCM), 2,
            "devices of 2018 to 2023 that insist on a suite with DHE",
        ),
        Profile(
            "bcp195-2015", "BCP 195 TLS Secure Transport Connection Profile", "B.9", "retired",
            Version.TLS_1_0, Version.TLS_1_3, (*_ECDHE_GCM, *_DHE_GCM, *_ECDHE_CBC, *_RSA_CBC), 0,
            "old devices that prefer TLS 1.2 and may know only an older one; never on a network that others reach",
        ),
        Profile(
            "aes-legacy", "AES TLS Secure Transport Connection Profile", "B.3", "retired",
            Version.TLS_1_0, Version.TLS_1_2, _RSA_CBC, 0,
            "devices from before 2018 that know nothing else; whoever gets hold of our key later can read what was "
            "recorded",
            "3DES, which B.3 falls back to: OpenSSL is built without it (RFC 7525 4.1)",
        ),
    )
}  # fmt: skip
"""By the name that the configuration has."""

DEFAULT_PROFILE = "bcp195"

ALERT_RECORD, HANDSHAKE_RECORD = 0x15, 0x16
"""First byte of a TLS record."""

HELLO_START = bytes((HANDSHAKE_RECORD, 0x03))
"""How every client of TLS begins (RFC 8446 5.1). No PDU, no block of MLLP and no request of HTTP begins so."""


TLS_ON_PLAIN_PORT = "the caller speaks TLS to a port without: give it the port of TLS, or switch TLS off there"
"""What is said of a caller whose first bytes on a plain port are those of TLS."""


class Spoken(StrEnum):
    """What a caller spoke in place of TLS, in words."""

    DICOM = "DICOM without TLS"
    MLLP = "HL7 over MLLP without TLS"
    HTTP = "HTTP without TLS"
    OTHER = "something that is neither TLS nor DICOM, HL7 or HTTP"


_METHODS = (b"GET ", b"HEAD", b"POST", b"PUT ", b"PATC", b"DELE", b"OPTI", b"CONN", b"TRAC", b"PRI ")


def is_tls(first: bytes) -> bool:
    """Whether what came first may be the beginning of TLS."""
    return first[:1] == HELLO_START[:1] and first[1:2] in (b"", HELLO_START[1:])


def spoken(first: bytes) -> Spoken:
    """What was spoken in place of TLS, by its first bytes."""
    if first[:2] == b"\x01\x00" or first == b"\x01":  # A-ASSOCIATE-RQ and its reserved byte (PS3.8 9.3.2)
        return Spoken.DICOM
    if first[:1] == b"\x0b" or first[:3] in (b"MSH", b"FHS", b"BHS"):
        return Spoken.MLLP
    return Spoken.HTTP if first[:4] in _METHODS else Spoken.OTHER
