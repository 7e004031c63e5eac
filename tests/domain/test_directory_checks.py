"""What is found wrong in a directory, what each mistake weighs, and that one bad entry harms no other."""

from dataclasses import replace

import pytest

from gateway.domain.directory import (
    DeviceEntry,
    Directory,
    NetworkAE,
    NetworkConnection,
    Role,
    Rules,
    TransferCapability,
)
from gateway.domain.directory_checks import Findings, Known, Weight, check, legal_ae_title, legal_uid

GOOD = DeviceEntry(
    "ct1",
    connections=(NetworkConnection("dicom", "ct1.hospital.example", 104),),
    aes=(NetworkAE("CT1", ("dicom",), acceptor=True),),
    primary_types=("CT",),
)


def with_ae(**changes: object) -> DeviceEntry:
    return replace(GOOD, aes=(replace(GOOD.aes[0], **changes),))  # type: ignore[arg-type]  # fields by name


def with_rules(**changes: object) -> DeviceEntry:
    return with_ae(rules=Rules(**changes))  # type: ignore[arg-type]  # fields by name


def with_connection(**changes: object) -> DeviceEntry:
    return replace(GOOD, connections=(replace(GOOD.connections[0], **changes),))  # type: ignore[arg-type]


def found(*devices: DeviceEntry, known: Known | None = None) -> Findings:
    return check(Directory(devices), "LDAP", known or Known())


def test_nothing_is_wrong_with_a_good_directory() -> None:
    assert found(GOOD, DeviceEntry("ris"), DeviceEntry("mr, 1+2", aes=(NetworkAE("MR1"),))) == Findings()


KNOWN = Known(
    profiles=["own-list"], sites=["NORTH"], character_sets=["ISO_IR 100"], called=["GATEWAY"], profiles_file="p.yaml"
)

MISTAKES = [
    (Weight.NOT_SERVED, replace(GOOD, name=" "), "it has no name"),
    (Weight.NOT_SERVED, with_ae(ae_title="CT-OF-THE-BASEMENT"), "'CT-OF-THE-BASEMENT' is no AE title"),
    (Weight.NOT_SERVED, with_ae(ae_title="CT\\1"), "is no AE title"),
    (Weight.NOT_SERVED, with_ae(ae_title=" CT1"), "is no AE title"),
    (Weight.NOT_SERVED, with_ae(ae_title=""), "'' is no AE title"),
    (Weight.NOT_SERVED, with_rules(profile="nobodys"), "there is no profile nobodys (p.yaml has: own-list)"),
    (Weight.NOT_SERVED, with_rules(addresses=("10.1.2.3/24",)), "'10.1.2.3/24' is no address or network"),
    (Weight.NOT_SERVED, with_rules(certificates=("sha256:12",)), "'sha256:12' is no certificate rule"),
    (Weight.NOT_SERVED, with_rules(may=("worklists",)), "'worklists' is no permission (have: worklist"),
    (Weight.NOT_SERVED, replace(with_rules(tls_required=True), own_certificates=("cn=ct1",)),
     "there is no certificate in cn=ct1"),
    (Weight.NOT_SERVED, replace(with_connection(tls_suites=("TLS_AES_128_GCM_SHA256",)), own_certificates=("cn=ct1",)),
     "there is no certificate in cn=ct1"),
    (Weight.NOT_SERVED, replace(GOOD, own_certificates=("cn=ct1",), fingerprints={"cn=ct1": ("12",)}),
     "'sha256:12' is no fingerprint"),
    (Weight.PART, with_rules(called=("NOBODY",)), "it may call 'NOBODY', which is none of our AE titles"),
    (Weight.PART, with_rules(sites=("MOON",)), "no orders of site MOON come here"),
    (Weight.PART, with_ae(connections=("dicm",)), "it has no connection dicm (did you mean dicom?)"),
    (Weight.PART, with_ae(connections=()), "it is called by others and has no connection"),
    (Weight.PART, with_connection(port=None), "it is called by others and has no port"),
    (Weight.PART, with_connection(port=70000), "there is no port 70000"),
    (Weight.PART, with_connection(port=0), "there is no port 0"),
    (Weight.PART, with_connection(host=""), "'' is no host name"),
    (Weight.PART, with_connection(host="ct 1"), "'ct 1' is no host name"),
    (Weight.PART, with_connection(tls_suites=("AES",)), "'AES' is no cipher suite"),
    (Weight.PART, replace(GOOD, connections=GOOD.connections * 2), "it has two connections dicom"),
    (Weight.PART, with_ae(character_sets=("latin",)), "'latin' is no defined term"),
    (Weight.PART, with_ae(capabilities=(TransferCapability("1.02", Role.SCU, ("1.2",)),)), "'1.02' is no UID of a SOP"),
    (Weight.PART, with_ae(capabilities=(TransferCapability("1.2", Role.SCU, ("x",)),)), "'x' is no UID of a transfer"),
    (Weight.PART, with_ae(capabilities=(TransferCapability("1.2", Role.SCU, ()),)), "1.2 has no transfer syntax"),
    (Weight.TOLD, replace(GOOD, primary_types=("C T",)), "'C T' is no code"),
    (Weight.TOLD, with_ae(preferred_called=("x" * 17,)), "which it prefers, is no AE title"),
]  # fmt: skip


@pytest.mark.parametrize(("weight", "device", "said"), MISTAKES, ids=[said for _, _, said in MISTAKES])
def test_a_mistake_names_the_entry_and_weighs_what_it_could_harm(
    weight: Weight, device: DeviceEntry, said: str
) -> None:
    other = DeviceEntry("mr1", aes=(NetworkAE("MR1"),))
    findings = found(device, other, known=KNOWN)
    assert {each.weight for each in findings.found} == {weight}
    assert said in str(findings.found[0].problem)
    assert findings.found[0].problem.where.startswith(f"LDAP devices {device.name}".rstrip())
    assert findings.not_served == ({device.aes[0].ae_title} if weight is Weight.NOT_SERVED else frozenset())
    assert not findings.refused
    assert bool(findings.mistakes) is (weight is not Weight.TOLD)


def test_without_knowing_what_is_configured_names_of_it_are_not_judged() -> None:
    assert not found(with_rules(profile="x", sites=("MOON",), called=("ANY",))).found


def test_an_ae_title_on_two_devices_refuses_the_whole_and_is_served_to_neither() -> None:
    findings = found(GOOD, replace(GOOD, name="ct2"), DeviceEntry("mr1", aes=(NetworkAE("MR1"),)))
    (problem,) = findings.refused
    assert problem.text == "CT1 is listed twice, by ct1 and ct2"
    assert findings.not_served == {"CT1"}


def test_an_ae_title_twice_in_one_device_is_as_ambiguous() -> None:
    assert found(replace(GOOD, aes=GOOD.aes * 2)).refused


def test_two_devices_of_one_name_are_refused_and_told_once() -> None:
    findings = found(GOOD, replace(GOOD, aes=(NetworkAE("CT2"),)))
    assert [problem.text for problem in findings.refused] == ["ct1 is listed twice"]
    assert findings.not_served == {"CT1", "CT2"}


def test_names_that_differ_in_case_are_told_and_harm_nobody() -> None:
    findings = found(GOOD, DeviceEntry("CT1", aes=(NetworkAE("CT2"),)))
    assert [problem.text for problem in findings.doubts] == ["ct1 and CT1 differ only in case"]
    assert not findings.mistakes


def test_names_that_differ_in_case_are_nothing_where_there_is_no_ldap() -> None:
    twins = Directory((GOOD, DeviceEntry("CT1", aes=(NetworkAE("CT2"),))))
    assert not check(twins, "devices.yaml", Known(in_ldap=False)).found


def test_a_device_that_may_come_plain_is_served_though_its_certificate_cannot_be_read() -> None:
    findings = found(replace(GOOD, own_certificates=("cn=ct1",)))
    assert [problem.text for problem in findings.doubts] == ["there is no certificate in cn=ct1"]
    assert not findings.not_served
    assert not findings.mistakes


def test_a_certificate_that_was_found_is_no_mistake() -> None:
    device = replace(GOOD, own_certificates=("cn=old", "cn=ct1"), fingerprints={"cn=ct1": ("ab" * 32,)})
    assert not found(device).found


def test_everything_wrong_is_said_at_once() -> None:
    assert len(found(*(device for _, device, _ in MISTAKES), known=KNOWN).found) >= len(MISTAKES)


# ---- rings ----


def related(name: str, *others: str) -> DeviceEntry:
    return DeviceEntry(name, related_devices=others)


@pytest.mark.parametrize(
    ("devices", "rings"),
    [
        ([related("a", "a")], ["a -> a"]),
        ([related("a", "b"), related("b", "dicomDeviceName=A,cn=Devices,dc=x")], ["a -> b -> a"]),
        ([related("a", "b", "c"), related("b", "c"), related("c", "dicomDeviceName=elsewhere,dc=x")], []),
        ([related("x", "a"), related("a", "b"), related("b", "a")], ["a -> b -> a"]),
    ],
)
def test_related_devices_in_a_ring_are_told(devices: list[DeviceEntry], rings: list[str]) -> None:
    said = [problem.text for problem in found(*devices).doubts]
    assert said == [f"related devices lead in a ring: {ring}" for ring in rings]


def test_a_ring_of_ten_thousand_is_followed_to_its_end() -> None:
    count = 10_000
    (problem,) = found(*(related(f"d{place}", f"d{(place + 1) % count}") for place in range(count))).doubts
    assert problem.text.endswith("d9999 -> d0")


@pytest.mark.parametrize("uid", ["1", "1.", ".1", "1..2", "01.2", "1.02", "1.2 ", "1.2.x", "1." + "1" * 63, ""])
def test_what_is_no_uid(uid: str) -> None:
    assert not legal_uid(uid)


def test_an_ae_title_has_sixteen_letters_at_most() -> None:
    assert legal_ae_title("A" * 16)
    assert not legal_ae_title("A" * 17)
    assert not legal_ae_title("A\n")
    assert not legal_ae_title("Ä")
