"""Reading a real OpenLDAP: trees by the standard alone, trees of dcm4chee, large ones, and ones that are wrong."""

from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.domain.directory import DeviceEntry, Directory, NetworkAE, NetworkConnection, Protocol, Role
from gateway.domain.directory import TransferCapability as Capability
from gateway.domain.directory_loss import roll_of
from gateway.edges import ldap_directory, ldap_session
from gateway.edges.ldap_changes import entries_of
from gateway.edges.ldap_directory import LDAPDirectory, LDAPFailed, ldif_of
from gateway.edges.ldif import ldif_record
from gateway.wire.distinguished_names import parse_dn
from tests.ldap.slapd import BASE, DEVICES, READER, READER_PASSWORD, REGISTRY, ROOT, slapd

pytestmark = pytest.mark.interop

MWL = "1.2.840.10008.5.1.4.31"
DCM4CHE = Path(__file__).parent / "dcm4che.ldif"

BY_HAND = f"""
dn: dicomDeviceName=ct1,{DEVICES}
objectClass: dicomDevice
dicomDeviceName: ct1
dicomInstalled: TRUE
dicomManufacturer: Invented
dicomStationName: CT-1
dicomPrimaryDeviceType: CT

dn: dicomHostname=ct1.hosp.example+dicomPort=104,dicomDeviceName=ct1,{DEVICES}
objectClass: dicomNetworkConnection
dicomHostname: ct1.hosp.example
dicomPort: 104

dn: cn=secure,dicomDeviceName=ct1,{DEVICES}
objectClass: dicomNetworkConnection
cn: secure
dicomHostname: ct1.hosp.example
dicomPort: 2762
dicomTLSCipherSuite: TLS_AES_128_GCM_SHA256

dn: dicomAETitle=CT1,dicomDeviceName=ct1,{DEVICES}
objectClass: dicomNetworkAE
dicomAETitle: CT1
dicomNetworkConnectionReference: dicomPort=104+dicomHostname=CT1.hosp.example, dicomDeviceName=ct1, {DEVICES}
dicomNetworkConnectionReference: cn=secure,dicomDeviceName=ct1,{DEVICES}
dicomAssociationInitiator: TRUE
dicomAssociationAcceptor: FALSE
dicomApplicationCluster: ct
dicomSupportedCharacterSet: ISO_IR 100

dn: dicomSOPClass={MWL}+dicomTransferRole=SCU,dicomAETitle=CT1,dicomDeviceName=ct1,{DEVICES}
objectClass: dicomTransferCapability
dicomSOPClass: {MWL}
dicomTransferRole: SCU
dicomTransferSyntax: 1.2.840.10008.1.2
dicomTransferSyntax: 1.2.840.10008.1.2.1

dn: dicomDeviceName=mr1,{DEVICES}
objectClass: dicomDevice
dicomDeviceName: mr1
dicomInstalled: FALSE
dicomPrimaryDeviceType: MR

dn: dicomAETitle=CT1,{REGISTRY}
objectClass: dicomUniqueAETitle
dicomAETitle: CT1
"""

CT1 = DeviceEntry(
    "ct1",
    manufacturer="Invented",
    station_name="CT-1",
    primary_types=("CT",),
    connections=(
        NetworkConnection("ct1.hosp.example:104", "ct1.hosp.example", 104),
        NetworkConnection("secure", "ct1.hosp.example", 2762, ("TLS_AES_128_GCM_SHA256",)),
    ),
    aes=(
        NetworkAE(
            "CT1",
            ("ct1.hosp.example:104", "secure"),
            clusters=("ct",),
            character_sets=("ISO_IR 100",),
            capabilities=(Capability(MWL, Role.SCU, ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")),),
        ),
    ),
)
MR1 = DeviceEntry("mr1", installed=False, primary_types=("MR",))


def devices_as_ldif(devices):
    below = parse_dn(DEVICES)
    return "\n".join(ldif_record(entry) for device in devices for entry in entries_of(device, below))


def test_a_tree_by_the_standard_alone_is_read(tmp_path):
    with slapd(tmp_path / "slapd", entries=BY_HAND) as server:
        snapshot = LDAPDirectory(server.access).snapshot()
    assert snapshot.directory == Directory((CT1, MR1))
    assert snapshot.problems == ()
    assert (snapshot.root, snapshot.server) == (ROOT, f"ldaps://localhost:{server.tls_port}")


def test_a_tree_of_dcm4chee_is_read(tmp_path):
    dicom, hl7 = f"cn=dicom,dicomDeviceName=arc,{DEVICES}", f"cn=hl7,dicomDeviceName=arc,{DEVICES}"
    entries = f"""
dn: dicomDeviceName=arc,{DEVICES}
objectClass: dicomDevice
objectClass: dcmDevice
dicomDeviceName: arc
dicomInstalled: TRUE
dcmTimeZoneOfDevice: Europe/Berlin

dn: {dicom}
objectClass: dicomNetworkConnection
objectClass: dcmNetworkConnection
cn: dicom
dicomHostname: arc.hosp.example
dicomPort: 11112
dcmProtocol: DICOM
dcmTLSProtocol: TLSv1.2

dn: {hl7}
objectClass: dicomNetworkConnection
cn: hl7
dicomHostname: arc.hosp.example
dicomPort: 2575

dn: cn=hl7-tls,dicomDeviceName=arc,{DEVICES}
objectClass: dicomNetworkConnection
objectClass: dcmNetworkConnection
cn: hl7-tls
dicomHostname: arc.hosp.example
dicomPort: 12575
dcmProtocol: HL7
dicomTLSCipherSuite: TLS_AES_128_GCM_SHA256

dn: cn=http,dicomDeviceName=arc,{DEVICES}
objectClass: dicomNetworkConnection
objectClass: dcmNetworkConnection
cn: http
dicomHostname: arc.hosp.example
dicomPort: 8080
dcmProtocol: HTTP

dn: dicomAETitle=DCM4CHEE,dicomDeviceName=arc,{DEVICES}
objectClass: dicomNetworkAE
objectClass: dcmNetworkAE
dicomAETitle: DCM4CHEE
dicomNetworkConnectionReference: {dicom}
dicomAssociationInitiator: TRUE
dicomAssociationAcceptor: TRUE
dcmAcceptedCallingAETitle: CT1

dn: hl7ApplicationName=HL7RCV|DCM4CHEE,dicomDeviceName=arc,{DEVICES}
objectClass: hl7Application
hl7ApplicationName: HL7RCV|DCM4CHEE
dicomNetworkConnectionReference: {hl7}
hl7AcceptedSendingApplication: RIS|HOSP

dn: dcmWebAppName=ui,dicomDeviceName=arc,{DEVICES}
objectClass: dcmWebApp
dcmWebAppName: ui
dicomNetworkConnectionReference: cn=http,dicomDeviceName=arc,{DEVICES}
"""
    with slapd(tmp_path / "slapd", schemas=[DCM4CHE], entries=entries) as server:
        directory = LDAPDirectory(server.access)
        snapshot = directory.snapshot()
        (arc,) = snapshot.directory.devices
        before = server.dump(DEVICES)
        assert directory.write_device(arc) == (f"dicomAETitle=DCM4CHEE,{REGISTRY}",)
        after = server.dump(DEVICES)
    assert snapshot.problems == ()
    assert {each.name: each.protocol for each in arc.connections} == {
        "dicom": Protocol.DICOM, "hl7": Protocol.HL7, "hl7-tls": Protocol.HL7,
    }  # fmt: skip
    assert [ae.ae_title for ae in arc.aes] == ["DCM4CHEE"]
    assert after == before, "what dcm4chee says already is not said again"


def test_classes_and_attributes_that_nobody_knows_do_not_count(tmp_path):
    schema = tmp_path / "site.ldif"
    schema.write_text(
        "dn: cn=site,cn=schema,cn=config\nobjectClass: olcSchemaConfig\ncn: site\n"
        "olcAttributeTypes: ( 2.25.1 NAME 'siteRoom' SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )\n"
        "olcObjectClasses: ( 2.25.2 NAME 'siteDevice' SUP top AUXILIARY MAY siteRoom )\n",
        encoding="ascii",
    )
    with slapd(tmp_path / "slapd", schemas=[schema], entries=BY_HAND) as server:
        server.load(
            f"dn: dicomDeviceName=ct1,{DEVICES}\nchangetype: modify\nadd: objectClass\nobjectClass: siteDevice\n-\n"
            "add: siteRoom\nsiteRoom: 17\n"
        )
        snapshot = LDAPDirectory(server.access).snapshot()
    assert snapshot.directory == Directory((CT1, MR1))
    assert snapshot.problems == ()


def test_missing_musts_are_told_and_cost_nobody_else(tmp_path):
    lacking = f"\ndn: dicomDeviceName=us1,{DEVICES}\nobjectClass: dicomDevice\ndicomDeviceName: us1\n"
    with slapd(tmp_path / "slapd", entries=BY_HAND + lacking, relaxed=True) as server:
        snapshot = LDAPDirectory(server.access).snapshot()
    assert snapshot.directory == Directory((CT1, MR1, DeviceEntry("us1")))
    (problem,) = snapshot.problems
    assert str(problem) == (
        f"LDAP dicomDeviceName=us1,{DEVICES}: it has no dicomInstalled, which the standard demands; TRUE is assumed "
        "(add dicomInstalled)"
    )


def test_the_configuration_is_found_wherever_it_stands(tmp_path):
    with slapd(tmp_path / "slapd", entries=BY_HAND) as server:
        for base in ("", BASE, ROOT, f"CN=dicom configuration, {BASE}"):
            snapshot = LDAPDirectory(replace(server.access, base=base)).snapshot()
            assert (snapshot.root, len(snapshot.directory.devices)) == (ROOT, 2)


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("dc=elsewhere", "there is no DICOM configuration (dicomConfigurationRoot) below dc=elsewhere; see `base`"),
        (REGISTRY, "there is no DICOM configuration"),
        ("hospital", "is no DN"),
    ],
)
def test_where_there_is_no_configuration_it_is_told(server, base, words):
    with pytest.raises(LDAPFailed) as failed:
        LDAPDirectory(replace(server.access, base=base)).read()
    assert words in str(failed.value)


def test_a_configuration_without_its_children_is_none(server):
    server.load(f"dn: {REGISTRY}\nchangetype: delete\n")
    with pytest.raises(LDAPFailed, match="lacks cn=Devices or cn=Unique AE Titles Registry"):
        LDAPDirectory(server.access).read()


def test_of_two_configurations_one_is_to_be_named(server):
    second = f"dc=two,{BASE}"
    server.load(
        f"dn: {second}\nobjectClass: organization\nobjectClass: dcObject\no: two\ndc: two\n\n"
        + ldif_of(Directory(), second).partition("\n\n")[2]
    )
    with pytest.raises(LDAPFailed, match="there are 2 DICOM configurations"):
        LDAPDirectory(server.access).read()
    assert LDAPDirectory(replace(server.access, base=second)).snapshot().root.endswith(second)


def test_ten_thousand_devices_are_read_page_by_page(tmp_path):
    many = [
        DeviceEntry(
            f"ct{number:05}",
            connections=(NetworkConnection("dicom", f"ct{number}.hosp.example", 104),),
            aes=(NetworkAE(f"CT{number:05}", ("dicom",)),),
        )
        for number in range(10_000)
    ]
    with slapd(tmp_path / "slapd", entries=devices_as_ldif(many)) as server:
        assert LDAPDirectory(server.access).read() == Directory(tuple(many))
        assert LDAPDirectory(server.access).find(ae_title="CT09999") == (many[9_999],)
        with pytest.raises(LDAPFailed, match=r"has more than 900 entries; name a `base` nearer .* raise entries_max"):
            LDAPDirectory(replace(server.access, entries_max=900)).read()


def test_a_limit_of_the_server_is_no_short_directory(tmp_path):
    many = [DeviceEntry(f"ct{number}") for number in range(20)]
    with slapd(tmp_path / "slapd", entries=devices_as_ldif(many), limits="size=10") as server:
        reader = replace(server.access, user=READER, password=READER_PASSWORD)
        with pytest.raises(LDAPFailed, match="raise its size limit for our account"):
            LDAPDirectory(reader).read()


@pytest.mark.parametrize("sync", [True, False])
def test_the_mark_is_another_after_any_change(tmp_path, sync):
    with slapd(tmp_path / "slapd", entries=BY_HAND, sync=sync) as server:
        directory = LDAPDirectory(replace(server.access, user=READER, password=READER_PASSWORD))
        marks = [directory.mark(), directory.snapshot().mark]
        assert marks[0] == marks[1]
        assert (bool(marks[0].suffix), marks[0].exact) == (sync, True)
        server.load(
            f"dn: dicomDeviceName=us1,{DEVICES}\nobjectClass: dicomDevice\ndicomDeviceName: us1\ndicomInstalled: TRUE\n"
        )
        marks.append(directory.mark())
        server.load(f"dn: dicomDeviceName=us1,{DEVICES}\nchangetype: delete\n")
        marks.append(directory.mark())
        assert marks[2].contents != marks[1].contents
        assert marks[3].contents == marks[1].contents, "it is as it was"
        for description in ("one", "two", "three"):  # within one second
            server.load(
                f"dn: dicomDeviceName=ct1,{DEVICES}\nchangetype: modify\nreplace: dicomDescription\n"
                f"dicomDescription: {description}\n"
            )
            marks.append(directory.mark(since=marks[-1]))
        assert len({mark.contents for mark in marks[2:]}) == 5


def test_what_changes_elsewhere_in_the_server_does_not_change_the_contents(tmp_path):
    with slapd(tmp_path / "slapd", entries=BY_HAND) as server:
        directory = LDAPDirectory(server.access)
        before = directory.snapshot().mark
        assert directory.mark(since=before) == before
        server.load(f"dn: {READER}\nchangetype: modify\nreplace: userPassword\nuserPassword: another\n")
        after = directory.mark(since=before)
    assert after.suffix != before.suffix
    assert after.contents == before.contents


def test_a_certificate_that_is_renewed_changes_the_contents(tmp_path):
    holder = f"cn=ct1-certificate,{BASE}"
    entries = f"""
dn: {holder}
objectClass: applicationProcess
objectClass: pkiUser
cn: ct1-certificate

dn: dicomDeviceName=us1,{DEVICES}
objectClass: dicomDevice
dicomDeviceName: us1
dicomInstalled: TRUE
dicomThisNodeCertificateReference: {holder}
"""
    der = trustme.CA().issue_cert("us1.hosp.example").cert_chain_pems[0].bytes()
    file = tmp_path / "leaf.der"
    file.write_bytes(x509.load_pem_x509_certificate(der).public_bytes(Encoding.DER))
    with slapd(tmp_path / "slapd", entries=entries) as server:
        directory = LDAPDirectory(server.access)
        before = directory.snapshot().mark
        server.load(f"dn: {holder}\nchangetype: modify\nadd: userCertificate;binary\n"
                    f"userCertificate;binary:< file://{file}\n")  # fmt: skip
        after = directory.snapshot().mark
        assert directory.mark() == after
    assert after.contents != before.contents


def once_the_devices_are_read(monkeypatch, happens):
    """What happens before their certificates are."""
    original = ldap_directory._holders

    def holders(*asked):
        happens()
        return original(*asked)

    monkeypatch.setattr(ldap_directory, "_holders", holders)


WITH_CERTIFICATE = BY_HAND.replace(
    "dicomStationName: CT-1\n", f"dicomStationName: CT-1\ndicomThisNodeCertificateReference: {READER}\n"
)


@pytest.mark.parametrize("happens", ["pause", "stop"])
def test_what_fails_while_certificates_are_read_is_no_whole_directory(tmp_path, monkeypatch, happens):
    with (
        slapd(tmp_path / "one", entries=WITH_CERTIFICATE) as first,
        slapd(tmp_path / "two", entries=WITH_CERTIFICATE, ca=first.ca) as second,
    ):
        once_the_devices_are_read(monkeypatch, getattr(first, happens))
        access = replace(first.access, timeout_s=2)
        with pytest.raises(LDAPFailed, match=r"got no answer in time|was cut off"):
            LDAPDirectory(access).snapshot()
        both = replace(access, servers=(*access.servers, *second.access.servers))
        found = LDAPDirectory(both).snapshot()
    assert found.server == second.access.servers[0]
    assert [each.name for each in found.directory.devices] == ["ct1", "mr1"]


def test_a_certificate_that_our_account_may_not_read_is_a_problem_of_one_device(tmp_path):
    hidden = f'to dn.base="{READER}" by * auth\nolcAccess: '
    with slapd(tmp_path / "slapd", entries=WITH_CERTIFICATE, access=hidden) as server:
        found = LDAPDirectory(replace(server.access, bind="anonymous")).snapshot()
    assert [each.name for each in found.directory.devices] == ["ct1", "mr1"]
    assert ["store it there" in problem.hint for problem in found.problems] == [True]


def test_one_server_may_not_take_all_the_time_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(ldap_session, "READING_TIMEOUTS", 0)
    with slapd(tmp_path / "slapd", entries=BY_HAND) as server:
        with pytest.raises(LDAPFailed, match="comes too late: all before took too long; see what"):
            LDAPDirectory(server.access).read()
        monkeypatch.setattr(ldap_directory, "ASKING_TIMEOUTS", -1)
        with pytest.raises(LDAPFailed, match="was not asked any more"):
            LDAPDirectory(server.access).read()


@pytest.mark.parametrize("hidden", [DEVICES, ROOT])
def test_a_server_that_shows_no_devices_any_more_is_not_believed(tmp_path, hidden):
    """An account that may not read below cn=Devices is answered as if all were well."""
    below = f'to dn.children="{DEVICES}" by * none\nolcAccess: ' if hidden == DEVICES else ""
    known = roll_of(Directory((CT1, MR1)))
    with (
        slapd(tmp_path / "one", entries=BY_HAND if below else "", access=below) as first,
        slapd(tmp_path / "two", entries=BY_HAND, ca=first.ca) as second,
    ):
        access = replace(first.access, user=READER, password=READER_PASSWORD)
        assert LDAPDirectory(access).snapshot().directory == Directory()
        with pytest.raises(LDAPFailed, match=r"none of the 2 devices .* may our account read below cn=Devices"):
            LDAPDirectory(access).snapshot(known)
        both = replace(access, servers=(*access.servers, *second.access.servers))
        assert LDAPDirectory(both).snapshot(known).server == second.access.servers[0]


def test_devices_are_found_by_what_is_known_of_them(tmp_path):
    with slapd(tmp_path / "slapd", entries=BY_HAND) as server:
        directory = LDAPDirectory(server.access)
        assert directory.find() == (CT1, MR1)
        assert directory.find(ae_title="CT1") == (CT1,)
        assert directory.find(ae_title="ct1") == (), "case counts in AE titles"
        assert directory.find(device="MR1") == (MR1,)
        assert directory.find(device_type="CT", host="CT1.hosp.example") == (CT1,)
        assert directory.find(device_type="MR", host="ct1.hosp.example") == ()
        assert directory.find(device="*") == (), "a value is no pattern"
        assert directory.find(device=")(objectClass=*") == ()
        assert directory.reserved() == ("CT1",)


def test_certificates_that_devices_refer_to_are_known_by_their_fingerprints(tmp_path):
    leaf = x509.load_pem_x509_certificate(trustme.CA().issue_cert("ct1.hosp.example").cert_chain_pems[0].bytes())
    holder, gone = f"cn=ct1,{BASE}", f"cn=gone,{BASE}"
    file = tmp_path / "leaf.der"
    file.write_bytes(leaf.public_bytes(Encoding.DER))
    entries = f"""
dn: {holder}
objectClass: applicationProcess
objectClass: pkiUser
cn: ct1
userCertificate;binary:< file://{file}

dn: dicomDeviceName=ct1,{DEVICES}
objectClass: dicomDevice
dicomDeviceName: ct1
dicomInstalled: TRUE
dicomThisNodeCertificateReference: {holder}
dicomAuthorizedNodeCertificateReference: {gone}
"""
    with slapd(tmp_path / "slapd", entries=entries) as server:
        snapshot = LDAPDirectory(server.access).snapshot()
    (device,) = snapshot.directory.devices
    assert device.fingerprints == {holder: (leaf.fingerprint(SHA256()).hex(),)}
    assert [gone in problem.text for problem in snapshot.problems] == [True]


def test_the_ldif_of_a_directory_is_that_directory(tmp_path, server):
    """Export, import elsewhere, read: H.1.4.4."""
    text = ldif_of(Directory((CT1, MR1)), BASE)
    for name in (DEVICES, REGISTRY, ROOT):
        server.load(f"dn: {name}\nchangetype: delete\n")
    server.load(text)
    assert LDAPDirectory(server.access).read() == Directory((CT1, MR1))
    assert LDAPDirectory(server.access).reserved() == ("CT1",)
