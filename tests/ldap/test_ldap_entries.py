"""Entries to devices and back, without a server: what is missing, strange or elsewhere costs nobody else."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.directory import (
    DeviceEntry,
    Directory,
    NetworkAE,
    NetworkConnection,
    Role,
    TransferCapability,
)
from gateway.domain.directory_checks import check
from gateway.edges.ldap_changes import entries_of, plan_of, unwritable
from gateway.edges.ldap_entries import entry_of, reading_of
from gateway.edges.ldif import ldif_of
from gateway.wire.distinguished_names import DN, DNError, parse_dn
from tests.ldap.whole_device import WHOLE

DEVICES = parse_dn("cn=Devices,cn=DICOM Configuration,dc=hospital,dc=example")
MWL = "1.2.840.10008.5.1.4.31"
IMPLICIT = "1.2.840.10008.1.2"

CT = replace(
    WHOLE, institution_names=("Hospital",), aes=(replace(WHOLE.aes[0], clusters=("ct",)), *WHOLE.aes[1:])
)  # fmt: skip


def written(*devices, below=DEVICES):
    return [entry for device in devices for entry in entries_of(device, below)]


def raw(dn, **attributes):
    values = {
        name.replace("_", ";"): [
            each if isinstance(each, bytes) else each.encode()
            for each in (value if isinstance(value, tuple) else (value,))
        ]
        for name, value in attributes.items()
    }
    return entry_of(f"{dn},{DEVICES}" if dn else str(DEVICES), values)


def as_read(device):
    """Parts have no order in a directory; they are read sorted."""
    aes = tuple(
        replace(ae, capabilities=tuple(sorted(ae.capabilities, key=lambda each: (each.name, each.role))))
        for ae in sorted(device.aes, key=lambda ae: ae.ae_title)
    )
    return replace(device, connections=tuple(sorted(device.connections, key=lambda each: each.name)), aes=aes)


def test_a_device_with_everything_comes_back():
    reading = reading_of(written(CT))
    assert reading.directory.devices == (as_read(CT),)
    assert reading.problems == ()


_NAMES = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() == text
)
_TITLES = st.text(st.sampled_from(' ,+"#<>;=aA1'), min_size=1, max_size=16).filter(lambda text: text.strip() == text)


@given(_NAMES, _NAMES, _TITLES)
def test_malicious_names_come_back_and_stay_where_they_belong(device, connection, title):
    entry = DeviceEntry(
        device, connections=(NetworkConnection(connection, "h"),), aes=(NetworkAE(title, (connection,)),)
    )
    entries = written(entry)
    assert all(each.dn.is_below(DEVICES) for each in entries)
    assert [len(each.dn.rdns) for each in entries] == [4 + 1, 4 + 2, 4 + 2]
    through_text = [entry_of(str(each.dn), each.attributes) for each in entries]
    assert reading_of(through_text).directory.devices == (entry,)


def test_what_the_standard_demands_and_is_missing_is_told_with_the_dn():
    entries = [
        raw("dicomDeviceName=ct1", objectClass="dicomDevice", dicomDeviceName="ct1"),
        raw("cn=a,dicomDeviceName=ct1", objectClass="dicomNetworkConnection", cn="a"),
        raw("cn=b,dicomDeviceName=ct1", objectClass="dicomNetworkConnection", cn="b", dicomHostname="h"),
        raw("dicomAETitle=CT1,dicomDeviceName=ct1", objectClass="dicomNetworkAE", dicomAETitle="CT1"),
        raw("cn=x,dicomDeviceName=ct1", objectClass="dicomNetworkAE"),
        raw("cn=t,dicomAETitle=CT1,dicomDeviceName=ct1", objectClass="dicomTransferCapability", cn="t"),
        raw("cn=nameless", objectClass="dicomDevice", dicomInstalled="TRUE"),
    ]
    reading = reading_of(entries)
    (device,) = reading.directory.devices
    assert device.installed
    assert [each.name for each in device.connections] == ["b"]
    assert [ae.ae_title for ae in device.aes] == ["CT1"]
    told = {
        (each.path.partition(",")[0], word)
        for each in reading.problems
        for word in each.text.split()
        if "dicom" in word
    }
    assert {
        ("dicomDeviceName=ct1", "dicomInstalled,"),
        ("cn=a", "dicomHostname,"),
        ("dicomAETitle=CT1", "dicomNetworkConnectionReference,"),
        ("dicomAETitle=CT1", "dicomAssociationInitiator,"),
        ("dicomAETitle=CT1", "dicomAssociationAcceptor,"),
        ("cn=x", "dicomAETitle,"),
        ("cn=t", "dicomSOPClass,"),
        ("cn=t", "dicomTransferRole,"),
        ("cn=t", "dicomTransferSyntax,"),
        ("cn=nameless", "dicomDeviceName,"),
    } == told
    assert all(each.hint for each in reading.problems)


@pytest.mark.parametrize(
    ("attributes", "word"),
    [
        ({"dicomInstalled": "YES"}, "neither TRUE nor FALSE"),
        ({"dicomDescription": b"\xff"}, "not UTF-8"),
        ({"dicomRelatedDeviceReference": "no dn"}, "no DN"),
    ],
)
def test_unusable_values_do_not_count_and_are_told(attributes, word):
    said = {"objectClass": b"dicomDevice", "dicomDeviceName": b"ct1", "dicomInstalled": b"TRUE"} | attributes
    values = {name: [value if isinstance(value, bytes) else value.encode()] for name, value in said.items()}
    reading = reading_of([entry_of(f"dicomDeviceName=ct1,{DEVICES}", values)])
    assert [device.name for device in reading.directory.devices] == ["ct1"]
    assert [word in each.text for each in reading.problems] == [True]


@pytest.mark.parametrize(("port", "means"), [("0", None), ("65536", None), ("-1", None), ("٣", None), ("104", 104)])
def test_a_port_is_one_or_is_told(port, means):
    entries = [
        raw("dicomDeviceName=ct1", objectClass="dicomDevice", dicomDeviceName="ct1", dicomInstalled="TRUE"),
        raw(
            "cn=a,dicomDeviceName=ct1", objectClass="dicomNetworkConnection", cn="a", dicomHostname="h", dicomPort=port
        ),
    ]
    reading = reading_of(entries)
    assert reading.directory.devices[0].connections[0].port == means
    assert bool(reading.problems) == (means is None)


def test_references_outside_to_nowhere_and_in_circles_lead_nowhere():
    ae = "dicomAETitle=CT1,dicomDeviceName=ct1"
    flags = {"dicomAssociationInitiator": "TRUE", "dicomAssociationAcceptor": "FALSE"}
    other = f"cn=dicom,dicomDeviceName=ct2,{DEVICES}"
    entries = [
        *written(DeviceEntry("ct2", connections=(NetworkConnection("dicom", "h2"),))),
        raw("dicomDeviceName=ct1", objectClass="dicomDevice", dicomDeviceName="ct1", dicomInstalled="TRUE",
            dicomRelatedDeviceReference=f"dicomDeviceName=ct1,{DEVICES}"),
        raw(ae, objectClass="dicomNetworkAE", dicomAETitle="CT1",
            dicomNetworkConnectionReference=(other, f"{ae},{DEVICES}", "cn=gone"), **flags),
    ]  # fmt: skip
    reading = reading_of(entries)
    assert reading.directory.devices[0].aes[0].connections == ()
    assert [f"refers to {dn}" in problem.text for dn, problem in zip(
        (other, f"{ae},{DEVICES}", "cn=gone"), reading.problems, strict=True
    )] == [True, True, True]  # fmt: skip


def test_parts_that_stand_elsewhere_are_told():
    entries = [
        raw("cn=a", objectClass="dicomNetworkConnection", cn="a", dicomHostname="h"),
        raw("dicomAETitle=CT1,cn=nobody", objectClass="dicomNetworkAE", dicomAETitle="CT1"),
        raw("cn=t", objectClass="dicomTransferCapability", cn="t"),
    ]
    reading = reading_of(entries)
    assert served(reading) == {"CT1": False}
    assert len(reading.problems) == 3


def served(reading):
    """AE title -> whether it is installed. Those that are not are known and not served."""
    return {ae.ae_title: device.is_installed(ae.installed) for device in reading.directory.devices for ae in device.aes}


def test_ae_titles_of_a_device_that_cannot_be_read_are_known_and_not_served():
    nameless = "cn=nameless"
    entries = [
        *written(CT),
        raw(nameless, objectClass="dicomDevice", cn="nameless", dicomInstalled="TRUE"),
        raw(f"dicomAETitle=MR1,{nameless}", objectClass="dicomNetworkAE", dicomAETitle="MR1"),
        raw(f"dicomAETitle=CT1,{nameless}", objectClass="dicomNetworkAE", dicomAETitle="CT1"),
        raw("dicomAETitle=MR1,cn=nobody", objectClass="dicomNetworkAE", dicomAETitle="MR1"),
    ]
    reading = reading_of(entries)
    assert served(reading) == {"CT1": True, "CT1_STORE": False, "MR1": False}  # as CT says of its second AE
    told = [each.path.partition(",")[0] for each in reading.problems if "known and not served" in each.text]
    assert sorted(told) == ["cn=nameless", "dicomAETitle=MR1"]
    assert check(reading.directory, "LDAP").refused == ()


@pytest.mark.parametrize(
    ("attributes", "is_served"),
    [
        ({"gatewayTLSRequired": "MAYBE"}, False),
        ({"gatewayUserRequired": "1"}, False),
        ({"gatewaySees": "owm"}, False),
        ({"gatewayMay": b"worklist\xff"}, False),
        ({"gatewayAddress": b"\xff"}, False),
        ({"gatewayTLSRequired": "true", "gatewaySees": "own"}, True),
        ({"dicomDescription": b"\xff"}, True),
    ],
)
def test_an_ae_whose_bounds_cannot_be_read_is_known_and_not_served(attributes, is_served):
    said = {"objectClass": "dicomNetworkAE", "dicomAETitle": "CT1", "dicomAssociationInitiator": "TRUE"} | attributes
    ae = raw("dicomAETitle=CT1,dicomDeviceName=ct1", **said)
    device = raw("dicomDeviceName=ct1", objectClass="dicomDevice", dicomDeviceName="ct1", dicomInstalled="TRUE")
    reading = reading_of([device, ae])
    assert served(reading) == {"CT1": is_served}
    assert any("known and not served" in each.text for each in reading.problems) is not is_served


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", None])
def test_an_ae_whose_only_connection_would_have_to_be_tls_and_cannot_be_read_is_not_served(suite):
    device = "dicomDeviceName=ct1"
    tls = {"dicomTLSCipherSuite": suite} if suite else {}
    reading = reading_of([
        raw(device, objectClass="dicomDevice", dicomDeviceName="ct1", dicomInstalled="TRUE"),
        raw(f"cn=a,{device}", objectClass="dicomNetworkConnection", cn="a", **tls),
        raw(f"dicomAETitle=CT1,{device}", objectClass="dicomNetworkAE", dicomAETitle="CT1",
            dicomNetworkConnectionReference=f"cn=a,{device},{DEVICES}"),
    ])  # fmt: skip
    assert served(reading) == {"CT1": suite is None}


@pytest.mark.parametrize("title", ["SEVENTEEN_LETTERS", "CT\\1", "CTÄ", "CT\x001"])
def test_what_is_no_ae_title_is_left_out(title):
    entries = [
        raw("dicomDeviceName=ct1", objectClass="dicomDevice", dicomDeviceName="ct1", dicomInstalled="TRUE"),
        raw("cn=ae,dicomDeviceName=ct1", objectClass="dicomNetworkAE", dicomAETitle=title),
    ]
    reading = reading_of(entries)
    assert reading.directory.devices[0].aes == ()
    assert "no AE title" in reading.problems[0].text


def test_a_fingerprint_is_that_of_the_certificate_behind_the_reference():
    there, gone = "cn=ct1,dc=certs", "cn=gone,dc=certs"
    device = replace(CT, authorized_certificates=(there,), own_certificates=(there, gone))
    reading = reading_of(written(device), {parse_dn("CN=CT1, DC=certs").key: (b"der",)})
    assert reading.directory.devices[0].fingerprints == {there: (hashlib.sha256(b"der").hexdigest(),)}
    assert [gone in each.text for each in reading.problems] == [True]


def test_nothing_changes_where_nothing_is_different():
    assert plan_of(CT, DEVICES, written(CT)) == plan_of(DeviceEntry("x"), DEVICES, written(DeviceEntry("x")))
    assert plan_of(CT, DEVICES, written(CT)).changes == ()


def test_the_smallest_change_is_made_and_what_is_foreign_stays():
    (entry, *rest) = written(CT)
    vendor = {"dicomvendordata": (b"\x00",), "dcmtimezoneofdevice": (b"UTC",)}
    entry = replace(entry, attributes=dict(entry.attributes) | vendor)
    foreign = raw(
        "cn=web,dicomDeviceName=ct1", objectClass="dicomNetworkConnection", cn="web", dicomHostname="h",
        dcmProtocol="HTTP",
    )  # fmt: skip
    wanted = replace(CT, station_name="CT-2", description="", connections=CT.connections[:3])
    plan = plan_of(wanted, DEVICES, [entry, *rest, foreign])
    assert plan.adds == ()
    assert [dict(change.attributes) for change in plan.changes] == [
        {"dicomdescription": ((b"in the basement",), ()), "dicomstationname": ((b"CT-1",), (b"CT-2",))}
    ]
    assert [str(each.dn).partition(",")[0] for each in plan.deletes] == ["cn=out"]


def test_a_connection_named_by_its_host_gets_a_new_entry_when_that_moves():
    dn = f"dicomHostname=h1+dicomPort=104,dicomDeviceName=ct1,{DEVICES}"
    existing = [
        *written(DeviceEntry("ct1")),
        entry_of(dn, {"objectClass": [b"dicomNetworkConnection"], "dicomHostname": [b"h1"], "dicomPort": [b"104"]}),
    ]
    (device,) = reading_of(existing).directory.devices
    assert plan_of(device, DEVICES, existing).adds == ()
    moved = replace(device, connections=(replace(device.connections[0], host="h2"),))
    plan = plan_of(moved, DEVICES, existing)
    assert [each.dn.rdns[0] for each in plan.adds] == [(("cn", "h1:104"),)]
    assert [each.dn for each in plan.deletes] == [parse_dn(dn)]


def test_what_annex_h_demands_is_asked_for_in_words():
    device = DeviceEntry(
        "ct1",
        connections=(NetworkConnection("a", " "),),
        aes=(NetworkAE("CT1"), NetworkAE("CT\\", ("b",), capabilities=(TransferCapability(MWL, Role.SCU, ()),))),
    )
    assert unwritable(device) == (
        "connection a has no host",
        "AE CT1 has no connection: say the host it is at",
        "AE CT\\ names connection b, which it has not",
        "'CT\\\\' is no AE title",
        f"AE CT\\ names no transfer syntax for {MWL}",
    )
    with pytest.raises(ValueError, match="has no host"):
        ldif_of(Directory((device,)), "dc=x")


def test_a_base_that_is_no_dn_is_refused():
    with pytest.raises(DNError):
        ldif_of(Directory(), "hospital")


def test_the_root_itself_may_be_the_base():
    text = ldif_of(Directory(), "cn=DICOM Configuration,dc=x")
    assert "dn: cn=Devices,cn=DICOM Configuration,dc=x\n" in text


def test_a_dn_key_is_that_of_the_root():
    assert DN().key == parse_dn(" ").key
