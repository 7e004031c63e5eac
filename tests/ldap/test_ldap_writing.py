"""Writing into a real OpenLDAP: whole devices or nothing, AE titles of one owner, names that stay names."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.device_settings import DevicesFile
from gateway.domain.directory import (
    DeviceEntry,
    Directory,
    NetworkAE,
    NetworkConnection,
    Protocol,
    Rules,
)
from gateway.edges import ldap_directory
from gateway.edges.ldap_directory import LDAPConflict, LDAPDirectory, LDAPFailed
from gateway.registry import directory_of, entries_of
from tests.ldap.slapd import DEVICES, READER, READER_PASSWORD, REGISTRY, slapd
from tests.ldap.whole_device import WHOLE as FULL

pytestmark = pytest.mark.interop

MWL = "1.2.840.10008.5.1.4.31"


def ct(name="ct1", title="CT1", **more):
    return DeviceEntry(
        name,
        connections=(NetworkConnection("dicom", f"{name}.hosp.example", 104),),
        aes=(NetworkAE(title, ("dicom",)),),
        **more,
    )


def test_a_directory_that_is_written_is_read_as_it_was(server):
    directory = LDAPDirectory(server.access)
    mr = ct("mr1", "MR1")
    for device in (FULL, mr):
        assert directory.write_device(device)
    snapshot = directory.snapshot()
    assert snapshot.directory == Directory((FULL, mr))
    assert snapshot.problems == ()
    assert directory.reserved() == ("CT1", "CT1_STORE", "MR1")
    assert directory.write_device(FULL) == (), "what is as it should be is not touched"


def test_an_update_touches_only_what_differs(server):
    directory = LDAPDirectory(server.access)
    directory.write_device(FULL)
    changed = replace(
        FULL,
        station_name="CT-2",
        connections=FULL.connections[:3],
        aes=(replace(FULL.aes[0], rules=Rules(), clusters=("mr",)),),
    )
    done = directory.write_device(changed)
    below = f"dicomDeviceName=ct1,{DEVICES}"
    assert set(done) == {below, f"dicomAETitle=CT1,{below}", f"dicomAETitle=CT1_STORE,{below}", f"cn=out,{below}"}
    assert directory.read() == Directory((changed,))
    assert directory.reserved() == ("CT1",), "the AE title of an AE that is gone is free again"


MALICIOUS = [
    f"x,{DEVICES}",
    'a"b',
    "a\\",
    "a+cn=b",
    "#04024869",
    "<a>;b=c",
    " leading and trailing ",
    "*)(objectClass=*",
    "Röntgen 放射線",
    "a\\,b",
    "a\x01b",
]


@pytest.mark.parametrize("name", MALICIOUS)
def test_a_malicious_name_stays_a_name(server, name):
    directory = LDAPDirectory(server.access)
    other = ct("other", "OTHER")
    directory.write_device(other)
    device = DeviceEntry(
        name, description=name, connections=(NetworkConnection(name, "h", 104),), aes=(NetworkAE("CT1", (name,)),)
    )
    directory.write_device(device)
    assert sorted(directory.read().devices, key=lambda each: each.name == "other") == [device, other]
    assert directory.find(device=name) == (device,)
    assert directory.delete_device(name)
    assert directory.read() == Directory((other,))


@pytest.mark.parametrize("title", ['CT,1+"2"', "#CT<1>;=", "CT 1*)(a=b", "ou=a,dc=b"])
def test_a_malicious_ae_title_stays_one(server, title):
    directory = LDAPDirectory(server.access)
    device = ct(title=title)
    directory.write_device(device)
    assert directory.find(ae_title=title) == (device,)
    assert directory.reserved() == (title,)
    with pytest.raises(LDAPConflict):
        directory.reserve(title)
    assert directory.delete_device("ct1")
    assert directory.reserved() == ()


def test_an_ae_title_has_one_owner(server):
    directory = LDAPDirectory(server.access)
    directory.write_device(ct())
    before = server.dump()
    with pytest.raises(
        LDAPConflict, match=r"AE title CT1 belongs to dicomDeviceName=ct1,.*; choose another for device"
    ):
        directory.write_device(ct("ct2", "CT1"))
    assert server.dump() == before


def test_a_reserved_ae_title_is_for_whoever_reserved_it(server):
    directory = LDAPDirectory(server.access)
    directory.reserve("CT1")
    assert directory.reserved() == ("CT1",)
    with pytest.raises(LDAPConflict, match="reserved already; choose another, or release it"):
        directory.reserve("CT1")
    with pytest.raises(LDAPConflict, match="is reserved for another device"):
        directory.write_device(ct())
    assert directory.read() == Directory()
    directory.write_device(ct(), reserved=frozenset({"CT1"}))
    with pytest.raises(LDAPConflict, match="delete it there first"):
        directory.release("CT1")
    assert directory.delete_device("ct1")
    assert directory.reserved() == ()


def test_release_says_whether_it_was_reserved(server):
    directory = LDAPDirectory(server.access)
    directory.reserve("CT1")
    assert directory.release("CT1")
    assert not directory.release("CT1")
    assert not directory.delete_device("nobody")
    with pytest.raises(LDAPFailed, match="is no AE title"):
        directory.reserve("CT\\1")


def test_two_devices_of_one_ae_title_are_read_and_neither_loses_it_silently(server):
    """Other tools let it happen; whoever checks directories reports it. A title stays reserved while anyone has it."""
    directory = LDAPDirectory(server.access)
    directory.write_device(ct())
    directory.write_device(ct("ct2", "CT2"))
    below = f"dicomDeviceName=ct2,{DEVICES}"
    server.load(
        f"dn: dicomAETitle=CT1,{below}\nobjectClass: dicomNetworkAE\ndicomAETitle: CT1\n"
        f"dicomNetworkConnectionReference: cn=dicom,{below}\ndicomAssociationInitiator: TRUE\n"
        "dicomAssociationAcceptor: FALSE\n"
    )
    both = directory.read()
    assert [[ae.ae_title for ae in device.aes] for device in both.devices] == [["CT1"], ["CT1", "CT2"]]
    assert [device.name for device in directory.find(ae_title="CT1")] == ["ct1", "ct2"]
    directory.write_device(replace(ct(), aes=(NetworkAE("CT3", ("dicom",)),)))
    assert directory.reserved() == ("CT1", "CT2", "CT3"), "the other one still has it"
    directory.delete_device("ct2")
    assert directory.reserved() == ("CT3",)


def test_what_fails_half_way_is_undone(server):
    """The server refuses an IA5 string of other letters; everything before it was accepted."""
    directory = LDAPDirectory(server.access)
    directory.write_device(ct())
    before = sorted(server.dump().split("\n\n"))
    wrong = NetworkAE("CT3", ("dicom",), character_sets=("ISO_IR é",))
    for device in (replace(ct("ct2", "CT2"), aes=(*ct("ct2", "CT2").aes, wrong)), replace(ct(), aes=(wrong,))):
        with pytest.raises(LDAPFailed, match="what was done before is undone") as failed:
            directory.write_device(device)
        assert "adding dicomAETitle=CT3" in str(failed.value)
        assert sorted(server.dump().split("\n\n")) == before


def test_what_our_account_may_not_do_is_told(server):
    reader = LDAPDirectory(replace(server.access, user=READER, password=READER_PASSWORD))
    with pytest.raises(LDAPFailed, match="let the server's access rules allow it"):
        reader.write_device(ct())
    assert LDAPDirectory(server.access).reserved() == ()


def test_what_annex_h_demands_is_asked_for_before_anything_is_written(server):
    with pytest.raises(LDAPFailed, match=r"device ct1 cannot stand in LDAP .* say the host it is at"):
        LDAPDirectory(server.access).write_device(DeviceEntry("ct1", aes=(NetworkAE("CT1"),)))


def test_an_ae_title_that_nobody_registered_is_registered_with_its_device(server):
    """Trees written by hand often leave the registry empty."""
    directory = LDAPDirectory(server.access)
    directory.write_device(ct())
    server.load(f"dn: dicomAETitle=CT1,{REGISTRY}\nchangetype: delete\n")
    directory.write_device(ct(description="now with words"))
    assert directory.reserved() == ("CT1",)


def test_an_ae_title_that_cannot_be_released_undoes_the_rest(server, monkeypatch):
    directory = LDAPDirectory(server.access)
    directory.write_device(replace(ct(), aes=(*ct().aes, NetworkAE("CT2", ("dicom",)), NetworkAE("CT3", ("dicom",)))))
    before = sorted(server.dump().split("\n\n"))
    original = ldap_directory._release

    def release(session, root, title):
        if title == "CT3":
            raise LDAPFailed("the server hangs")
        return original(session, root, title)

    monkeypatch.setattr(ldap_directory, "_release", release)
    for change in (lambda: directory.write_device(ct()), lambda: directory.delete_device("ct1")):
        with pytest.raises(LDAPFailed, match="the server hangs; what was done before is undone"):
            change()
        assert sorted(server.dump().split("\n\n")) == before


# ---- trees of others -------------------------------------------------------------------------------------------------

ARC = f"dicomDeviceName=arc,{DEVICES}"
OF_DCM4CHEE = f"""
dn: {ARC}
objectClass: dicomDevice
objectClass: dcmDevice
dicomDeviceName: arc
dicomInstalled: TRUE
dcmTimeZoneOfDevice: Europe/Berlin

dn: cn=dicom-1,{ARC}
objectClass: dicomNetworkConnection
objectClass: dcmNetworkConnection
cn: dicom-1
dicomHostname: arc.hosp.example
dicomPort: 11112
dcmProtocol: DICOM
dcmTLSProtocol: TLSv1.2

dn: cn=hl7-1,{ARC}
objectClass: dicomNetworkConnection
objectClass: dcmNetworkConnection
cn: hl7-1
dicomHostname: arc.hosp.example
dicomPort: 2575
dcmProtocol: HL7

dn: cn=http,{ARC}
objectClass: dicomNetworkConnection
objectClass: dcmNetworkConnection
cn: http
dicomHostname: arc.hosp.example
dicomPort: 8080
dcmProtocol: HTTP

dn: dicomAETitle=DCM4CHEE,{ARC}
objectClass: dicomNetworkAE
objectClass: dcmNetworkAE
dicomAETitle: DCM4CHEE
dicomNetworkConnectionReference: cn=http,{ARC}
dicomNetworkConnectionReference: cn=dicom-1,{ARC}
dicomAssociationInitiator: TRUE
dicomAssociationAcceptor: TRUE
dcmAcceptedCallingAETitle: CT1

dn: cn=both,dicomAETitle=DCM4CHEE,{ARC}
objectClass: dicomTransferCapability
cn: both
dicomSOPClass: {MWL}
dicomTransferRole: BOTH
dicomTransferSyntax: 1.2.840.10008.1.2

dn: dicomAETitle=TWENTY_SIX_LETTERS_OF_ASCI,{ARC}
objectClass: dicomNetworkAE
dicomAETitle: TWENTY_SIX_LETTERS_OF_ASCI
dicomNetworkConnectionReference: cn=dicom-1,{ARC}
dicomAssociationInitiator: TRUE
dicomAssociationAcceptor: FALSE

dn: hl7ApplicationName=HL7RCV|DCM4CHEE,{ARC}
objectClass: hl7Application
hl7ApplicationName: HL7RCV|DCM4CHEE
dicomNetworkConnectionReference: cn=hl7-1,{ARC}

dn: dicomAETitle=DCM4CHEE,{REGISTRY}
objectClass: dicomUniqueAETitle
dicomAETitle: DCM4CHEE
"""


@pytest.fixture
def theirs(tmp_path):
    """A directory that dcm4chee has written."""
    with slapd(tmp_path / "theirs", schemas=[Path(__file__).parent / "dcm4che.ldif"], entries=OF_DCM4CHEE) as running:
        yield running


def lines(server):
    return set(server.dump(DEVICES).replace("\n\n", "\n").splitlines())


def test_what_could_not_be_read_is_not_deleted(theirs):
    directory = LDAPDirectory(theirs.access)
    (arc,) = directory.read().devices
    before = lines(theirs)
    (changed,) = directory.write_device(replace(arc, manufacturer="Invented"))
    assert changed == ARC
    assert lines(theirs) - before == {"dicomManufacturer: Invented"}
    assert before - lines(theirs) == set()


def test_references_that_our_model_has_no_place_for_stay_when_others_change(theirs):
    directory = LDAPDirectory(theirs.access)
    (arc,) = directory.read().devices
    second = NetworkConnection("dicom-2", "arc2.hosp.example", 11112)
    (ae,) = arc.aes
    wanted = replace(
        arc, connections=(arc.connections[0], second, *arc.connections[1:]),
        aes=(replace(ae, connections=("dicom-1", "dicom-2")),),
    )  # fmt: skip
    before = lines(theirs)
    directory.write_device(wanted)
    assert directory.read().devices == (wanted,)
    assert before <= lines(theirs)


def test_a_device_that_goes_through_the_form_of_a_file_changes_nothing(theirs):
    """So `gateway devices approve` widens an entry in LDAP."""
    directory = LDAPDirectory(theirs.access)
    entries = entries_of(directory.read())
    before = theirs.dump()
    (arc,) = directory_of(DevicesFile.model_validate(entries)).devices
    assert directory.write_device(arc) == ()
    (ae,) = arc.aes
    widened = replace(arc, aes=(replace(ae, rules=Rules(addresses=("192.0.2.1",))),))
    assert directory.write_device(widened) == (f"dicomAETitle=DCM4CHEE,{ARC}",)
    after = set(theirs.dump().splitlines())
    assert after - set(before.splitlines()) == {"objectClass: gatewayNetworkAE", "gatewayAddress: 192.0.2.1"}
    assert set(before.splitlines()) <= after


@pytest.mark.parametrize("with_hl7", [True, False])
def test_a_file_written_by_hand_changes_nothing_in_a_tree_of_dcm4chee(theirs, with_hl7):
    """It names connections otherwise, or not at all those that only an HL7 application uses."""
    hl7 = (NetworkConnection("hl7", "arc.hosp.example", 2575, protocol=Protocol.HL7),)
    short = DeviceEntry(
        "arc",
        connections=(NetworkConnection("dicom", "arc.hosp.example", 11112), *(hl7 if with_hl7 else ())),
        aes=(NetworkAE("DCM4CHEE", ("dicom",), True, True),),
    )
    before = theirs.dump(DEVICES)
    assert LDAPDirectory(theirs.access).write_device(short) == ()
    assert theirs.dump(DEVICES) == before


def test_a_name_of_a_foreign_connection_is_not_taken(theirs):
    directory = LDAPDirectory(theirs.access)
    (arc,) = directory.read().devices
    before = theirs.dump()
    wanted = replace(arc, connections=(*arc.connections, NetworkConnection("http", "arc.hosp.example", 104)))
    with pytest.raises(
        LDAPFailed, match=r"cn=http,.* is for another protocol; give the connection of arc another name"
    ):
        directory.write_device(wanted)
    assert theirs.dump() == before
