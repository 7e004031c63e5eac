"""Who is let in: every bound against every kind of caller, and how often one may come."""

from dataclasses import replace
from ipaddress import ip_network
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.access import (
    OPEN,
    Access,
    Caller,
    Certificate,
    Denial,
    User,
    certificate_rule,
    denied,
    fits,
    in_networks,
    is_public,
)
from gateway.domain.rates import BURST_MIN, Rates
from gateway.domain.senders import SenderRule, barred, says_to_be, strange

OWN = Certificate("ab" * 32, "CT1", ("ct1.hosp.example", "10.0.0.1"))
OTHER = Certificate("cd" * 32, "MR1", ("mr1.hosp.example",))
FINGERPRINT, SUBJECT, NAME = (
    certificate_rule(text) for text in (f"sha256:{'AB:' * 31}AB", "subject:CT1", "name:CT1.hosp.EXAMPLE")
)
NETWORK = (ip_network("10.0.0.0/24"), ip_network("fd00::/64"))
PROVED, SAID = User("ann", 2, True), User("ann", 1, False)


@pytest.mark.parametrize("address", [
    "10.0.0.5", "100.64.0.1", "127.0.0.1", "169.254.169.254", "192.0.0.8", "192.0.0.170", "198.18.0.1", "224.0.0.1",
    "::", "::1", "::7f00:1", "::10.0.0.5", "::8.8.8.8", "::ffff:10.0.0.5", "64:ff9b::a00:5", "64:ff9b:1::a00:5",
    "64:ff9b:1::808:808", "2001::1", "2001:db8::1", "2002:a00:5::1", "3fff::1", "5f00::1", "fc00::1", "fe80::1%eth0",
    "fec0::1", "ff02::1", "", "ehr.example",
])  # fmt: skip
def test_what_may_lead_elsewhere_than_to_the_internet_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "192.0.1.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "2606:4700::1111"]
)
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


def expected(access: Access, caller: Caller) -> set[Denial]:
    """Every reason there is, each found by itself."""
    reasons = set()
    if access.called and caller.called_ae_title != "LIST":
        reasons.add(Denial.CALLED_NOT_ALLOWED)
    if access.networks and caller.address in ("10.0.1.7", "fd00:1::7", "", "nowhere"):
        reasons.add(Denial.ADDRESS)
    if not caller.tls and (access.tls_required or access.certificates):
        reasons.add(Denial.PLAIN)
    if access.certificates and caller.certificate is not OWN:
        reasons.add(Denial.CERTIFICATE)
    if access.user_required and caller.user is None:
        reasons.add(Denial.NO_USER)
    if access.user_required and caller.user is SAID:
        reasons.add(Denial.USER)
    return reasons


ORDER = (Denial.CALLED_NOT_ALLOWED, Denial.ADDRESS, Denial.PLAIN, Denial.CERTIFICATE, Denial.NO_USER, Denial.USER)


def test_each_caller_is_denied_for_the_first_bound_it_does_not_keep_and_for_no_other():
    counted = dict.fromkeys((None, *ORDER), 0)
    for called, networks, certificates, tls_required, user_required in product(
        (frozenset(), frozenset({"LIST"})), ((), NETWORK), ((), (FINGERPRINT,), (SUBJECT, NAME)), *[(False, True)] * 2
    ):
        access = Access(
            networks=networks, certificates=certificates, called=called,
            tls_required=tls_required, user_required=user_required,
        )  # fmt: skip
        addresses = ("10.0.0.7", "::ffff:10.0.0.7", "fd00::7", "fd00::7%eth0", "10.0.1.7", "fd00:1::7", "", "nowhere")
        for title, address, tls, shown, user in product(
            ("LIST", "OTHER"), addresses, (False, True), (None, OWN, OTHER), (None, PROVED, SAID)
        ):
            caller = Caller("CT1", title, address, tls, shown, user)
            reasons = expected(access, caller)
            first = next((reason for reason in ORDER if reason in reasons), None)
            assert denied(access, caller) is first, (access, caller)
            counted[first] += 1
    assert all(counted.values())


def test_whoever_has_no_bounds_is_let_in_from_anywhere_with_anything():
    for address, tls, shown, user in product(("10.0.0.7", "", "?"), (False, True), (None, OTHER), (None, SAID)):
        assert denied(OPEN, Caller("CT1", "GATEWAY", address, tls, shown, user)) is None


@pytest.mark.parametrize("rule", [FINGERPRINT, SUBJECT, NAME])
def test_a_rule_fits_the_certificate_it_is_about_and_no_other(rule):
    assert fits(rule, OWN)
    assert not fits(rule, OTHER)
    assert not fits(rule, None)


def test_a_common_name_is_no_alternative_name_and_the_other_way_round():
    assert not fits(certificate_rule("name:CT1"), OWN)
    assert not fits(certificate_rule("subject:ct1.hosp.example"), OWN)
    assert not fits(SUBJECT, replace(OWN, common_name="ct1"))  # a common name is compared letter by letter


@pytest.mark.parametrize("said", ["subject:CN=US1", "subject: cn = US1"])
def test_a_common_name_written_as_part_of_a_distinguished_name_is_refused_with_how_to_write_it(said):
    with pytest.raises(ValueError, match=r"subject:US1$"):
        certificate_rule(said)
    assert certificate_rule("subject:CNX=1").value == "CNX=1"


def test_an_address_of_one_family_is_in_no_network_of_the_other():
    assert not in_networks("fd00::7", [ip_network("0.0.0.0/0")])
    assert not in_networks("10.0.0.7", [ip_network("::/0")])
    assert in_networks("::ffff:10.0.0.7", [ip_network("0.0.0.0/0")])


# Senders of HL7


RIS = SenderRule("RIS|RADX", (ip_network("10.0.0.1"),))


def test_a_sender_is_barred_from_everywhere_but_one_of_its_places():
    rules = [RIS, SenderRule("RIS|RADX", (), (SUBJECT,)), SenderRule("PAS", (ip_network("10.0.0.2"),))]
    assert barred(rules, "10.0.0.1", None) == ("PAS",)
    assert barred(rules, "10.0.0.2", None) == ("RIS|RADX",)
    assert barred(rules, "10.0.0.9", OWN) == ("PAS",)
    assert barred(rules, "10.0.0.9", OTHER) == ("RIS|RADX", "PAS")


@pytest.mark.parametrize(
    ("application", "facility", "is_it"),
    [
        ("RIS", "RADX", True), ("ris", "Radx", True), (" RIS ", "RADX", True), ("RIS", "OTHER", False),
        ("RIS", "", False), ("RADX", "RIS", False), ("PAS", "", True), ("PAS", "ANY", True), ("PASX", "", False),
        ("", "", False),
    ],
)  # fmt: skip
def test_a_message_names_a_sender_however_it_is_written(application, facility, is_it):
    assert says_to_be(application, facility, ("RIS|RADX", "PAS")) is is_it


def test_without_bounds_nobody_is_strange_and_without_tls_nobody_has_a_certificate():
    assert strange((), (), "10.0.0.1", None) is None
    assert strange((), (SUBJECT,), "10.0.0.1", None) is Denial.PLAIN
    assert strange((), (SUBJECT,), "10.0.0.1", OTHER) is Denial.CERTIFICATE
    assert strange(NETWORK, (SUBJECT,), "10.9.9.9", OWN) is Denial.ADDRESS


# How often


def test_a_burst_is_let_in_at_once_and_then_as_many_as_time_brings():
    rates = Rates(2)
    assert [rates.allows("CT1", 0.0) for _ in range(BURST_MIN + 2)] == [True] * BURST_MIN + [False] * 2
    assert rates.allows("CT2", 0.0)
    assert [rates.allows("CT1", 1.0) for _ in range(3)] == [True, True, False]


def test_what_waits_is_spread_over_time_and_nothing_is_lost():
    rates = Rates(10)
    waits = [rates.wait_s("10.0.0.1", 0.0) for _ in range(int(rates.burst) + 4)]
    assert waits == pytest.approx([0.0] * int(rates.burst) + [0.1, 0.2, 0.3, 0.4])
    assert rates.wait_s("10.0.0.2", 0.0) == 0.0


def test_no_limit_keeps_nothing():
    rates = Rates(0)
    assert all(rates.allows(str(number), 0.0) and rates.wait_s(str(number), 0.0) == 0 for number in range(100))
    assert len(rates) == 0


@given(
    st.lists(st.tuples(st.integers(0, 20), st.floats(0, 10)), max_size=200),
    st.floats(0.01, 50),
    st.integers(1, 8),
)
def test_nobody_gets_more_than_burst_and_rate_and_few_are_remembered(asked, per_s, most):
    rates, at = Rates(per_s, most), 0.0
    allowed: dict[str, int] = {}
    for number, later in asked:
        at += later
        allowed[str(number)] = allowed.get(str(number), 0) + rates.allows(str(number), at)
        assert len(rates) <= most
    if len(allowed) <= most:
        assert all(count <= rates.burst + at * per_s + 1e-6 for count in allowed.values())


def test_a_clock_that_stands_still_or_goes_back_gives_nothing():
    rates = Rates(1)
    for _ in range(BURST_MIN):
        rates.allows("CT1", 100.0)
    assert not rates.allows("CT1", 100.0)
    assert not rates.allows("CT1", 50.0)


def test_a_certificate_of_the_directory_binds_who_comes_by_tls_and_demands_no_tls() -> None:
    pinned = Access(pinned=(certificate_rule(f"sha256:{'ab' * 32}"),))
    plain = Caller("CT1", "GATEWAY", "10.0.0.1")
    assert denied(pinned, plain) is None
    assert denied(pinned, replace(plain, tls=True)) is Denial.CERTIFICATE
    assert denied(pinned, replace(plain, tls=True, certificate=Certificate("cd" * 32))) is Denial.CERTIFICATE
    assert denied(pinned, replace(plain, tls=True, certificate=Certificate("ab" * 32))) is None
    assert denied(replace(pinned, tls_required=True), plain) is Denial.PLAIN
