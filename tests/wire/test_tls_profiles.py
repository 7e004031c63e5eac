"""The table of TLS profiles: what the standard asks of each row, and protocols told apart by their first bytes."""

import pytest

from gateway.security_settings import TLSProfileName
from gateway.wire.tls_profiles import (
    DEFAULT_PROFILE,
    HELLO_START,
    PROFILES,
    TLS_1_3_SUITES,
    Profile,
    Spoken,
    Version,
    is_tls,
    spoken,
)

B12 = {
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
}
B10 = {
    "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
}


def suites(name: str) -> set[str]:
    return {suite.iana for suite in PROFILES[name].suites}


def test_every_profile_that_the_configuration_knows_is_in_the_table() -> None:
    assert set(PROFILES) == set(TLSProfileName.__args__)  # type: ignore[attr-defined]  # of a Literal


def test_mandatory_suites_are_offered_and_b12_offers_no_other() -> None:
    assert suites("bcp195") == B12
    assert suites("bcp195-modified") > B12
    assert suites("non-downgrading") >= B10
    assert suites("bcp195-2015") >= B10
    assert "TLS_RSA_WITH_AES_128_CBC_SHA" in suites("aes-legacy")


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
def test_only_retired_profiles_allow_versions_before_1_2_or_static_keys(profile: Profile) -> None:
    retired = profile.section in ("B.3", "B.9")
    assert profile.outdated is retired
    assert any(suite.iana.startswith("TLS_RSA_") for suite in profile.suites) is retired
    assert (profile.security_level == 2) is not retired


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES.keys())
def test_a_version_outside_a_profile_has_no_suite(profile: Profile) -> None:
    for version in Version:
        assert bool(profile.suites_of(version)) is (profile.oldest <= version <= profile.newest)


def test_the_default_has_tls_1_2_and_1_3() -> None:
    profile = PROFILES[DEFAULT_PROFILE]
    assert (profile.oldest, profile.newest) == (Version.TLS_1_2, Version.TLS_1_3)
    assert profile.suites_of(Version.TLS_1_3) == TLS_1_3_SUITES
    assert [str(version) for version in Version] == ["TLS 1.0", "TLS 1.1", "TLS 1.2", "TLS 1.3"]


@pytest.mark.parametrize(
    ("first", "what"),
    [
        (b"\x01\x00\x00\x00\x00\xcd", Spoken.DICOM),
        (b"\x01", Spoken.DICOM),
        (b"\x0bMSH|", Spoken.MLLP),
        (b"MSH|^~\\&", Spoken.MLLP),
        (b"GET / HTTP", Spoken.HTTP),
        (b"POST /api", Spoken.HTTP),
        (b"\x80\x2e\x01\x00\x02", Spoken.OTHER),
        (b"\x16\x02", Spoken.OTHER),
    ],
)
def test_what_is_no_tls_is_told_by_its_first_bytes(first: bytes, what: Spoken) -> None:
    assert not is_tls(first)
    assert spoken(first) is what


@pytest.mark.parametrize("first", [HELLO_START[:1], HELLO_START, HELLO_START + b"\x01\x02\x00"])
def test_tls_is_known_from_its_first_byte_on(first: bytes) -> None:
    assert is_tls(first)
