"""The registry and the directory: what an entry means, how a device is written, and what a caller is bound to."""

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.device_settings import TLS_SUITES, DevicesFile
from gateway.domain.access import OPEN, Access, CertificateRule, CertificateRuleKind, Permission
from gateway.domain.devices import PLAIN, CharacterSets, Devices, MPPSAnswers, Profile, Sees
from gateway.domain.directory import (
    DeviceEntry,
    Directory,
    NetworkAE,
    NetworkConnection,
    Protocol,
    Role,
    Rules,
    TransferCapability,
)
from gateway.registry import device, directory_of, entries_of, group_rules, registry
from gateway.security_settings import DeviceGroupSettings

FINGERPRINT = "ab" * 32


def parsed(*entries: dict[str, object]) -> Directory:
    return directory_of(DevicesFile.model_validate({"devices": entries}))


def served(directory: Directory, *profiles: Profile, not_served: tuple[str, ...] = ()) -> Devices:
    return registry(directory, profiles, (), accept_unknown=False, not_served=not_served)


# ---- round trip ----

texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
words = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", min_size=1, max_size=12)
uids = st.sampled_from(("1.2.840.10008.5.1.4.31", "1.2.840.10008.1.2", "1.2.840.10008.1.1", "1.0"))
several = st.lists(texts, max_size=3, unique=True).map(tuple)
titles = st.lists(words, max_size=2, unique=True).map(tuple)
connections = st.builds(
    NetworkConnection,
    name=st.sampled_from(("dicom", "hl7", "dicom-tls", "cn=x, y")),
    host=st.sampled_from(("ct1.hospital.example", "10.1.2.3")),
    port=st.none() | st.integers(1, 65535),
    tls_suites=st.sampled_from(((), TLS_SUITES, ("TLS_RSA_WITH_AES_128_CBC_SHA",))),
    installed=st.none() | st.booleans(),
    protocol=st.sampled_from(Protocol),
)
plain_connections = st.sampled_from(
    (
        (),
        (NetworkConnection("dicom", "ct1", 104),),
        (NetworkConnection("dicom", "ct1"),),
        (NetworkConnection("dicom", "ct1", 2762, TLS_SUITES),),
        (NetworkConnection("dicom", "ct1", 104), NetworkConnection("hl7", "ct1", 2575, protocol=Protocol.HL7)),
        (NetworkConnection("hl7", "ct1", 2575, protocol=Protocol.HL7),),
    )
)
capabilities = st.builds(
    TransferCapability,
    sop_class=uids,
    role=st.sampled_from(Role),
    transfer_syntaxes=st.lists(uids, min_size=1, max_size=2).map(tuple),
    name=st.just("") | texts,
)
rules = st.builds(
    Rules,
    profile=st.just("") | words,
    sees=st.none() | st.sampled_from(Sees),
    sites=several,
    mpps_strict=st.booleans(),
    mpps_answers=st.sampled_from(MPPSAnswers),
    may=st.sampled_from(((), ("worklist",), ("mpps", "availability"))),
    addresses=st.sampled_from(((), ("10.1.2.0/24", "::1"))),
    certificates=st.sampled_from(((), (f"sha256:{FINGERPRINT}", "subject:CT1"))),
    called=titles,
    tls_required=st.booleans(),
    users=st.booleans(),
)
device_texts = {
    "description": st.just("") | texts,
    "manufacturer": st.just("") | texts,
    "model": st.just("") | texts,
    "station_name": st.just("") | texts,
    "serial_number": st.just("") | texts,
    "issuer_of_patient_id": st.just("") | texts,
    "software_versions": several,
    "institution_names": several,
    "institution_addresses": several,
    "departments": several,
    "primary_types": several,
    "related_devices": several,
    "authorized_certificates": several,
    "own_certificates": several,
    "fingerprints": st.dictionaries(texts, st.sampled_from(((), (FINGERPRINT,))), max_size=2),
}


@st.composite
def device_entries(draw: st.DrawFn) -> DeviceEntry:
    known = draw(plain_connections | st.lists(connections, max_size=3, unique_by=lambda each: each.name).map(tuple))
    names = [each.name for each in known]
    dicom = tuple(each.name for each in known if each.protocol is Protocol.DICOM)
    aes = draw(
        st.lists(
            st.builds(
                NetworkAE,
                ae_title=words,
                connections=st.just(dicom) | st.lists(st.sampled_from([*names, "lost"]), max_size=2).map(tuple),
                initiator=st.booleans(),
                acceptor=st.booleans(),
                description=st.just("") | texts,
                clusters=titles,
                preferred_called=titles,
                preferred_calling=titles,
                character_sets=st.sampled_from(((), ("ISO_IR 100", "ISO 2022 IR 87"))),
                installed=st.none() | st.booleans(),
                capabilities=st.lists(capabilities, max_size=2).map(tuple),
                rules=st.just(Rules()) | rules,
            ),
            max_size=2,
        ).map(tuple)
    )
    name = draw(st.sampled_from(aes).map(lambda ae: ae.ae_title) | texts) if aes else draw(texts)
    return draw(st.builds(DeviceEntry, name=st.just(name), connections=st.just(known), aes=st.just(aes),
                          installed=st.booleans(), **device_texts))  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(device_entries(), max_size=2).map(tuple).map(Directory))
def test_what_is_written_of_a_directory_means_the_same_directory(directory: Directory) -> None:
    assert directory_of(DevicesFile.model_validate(entries_of(directory))) == directory


def test_the_shortest_form_is_what_a_person_would_write() -> None:
    entry = {"ae_title": "CT1", "description": "CT", "host": "ct1", "port": 104, "tls": True, "group": "CT",
             "profile": "own-list", "types": ["CT"]}  # fmt: skip
    assert entries_of(parsed(entry)) == {"devices": [entry]}


# ---- what an entry means ----


def test_an_entry_of_one_ae_is_a_device_of_that_name() -> None:
    (found,) = parsed({"ae_title": "CT1"}).devices
    assert found == DeviceEntry("CT1", aes=(NetworkAE("CT1"),))


def test_a_host_with_a_port_makes_it_callable_and_hl7_a_connection_of_its_own() -> None:
    (found,) = parsed({"ae_title": "CT1", "host": "ct1", "port": 104, "hl7_port": 2575}).devices
    assert found.aes[0].acceptor
    assert found.aes[0].connections == ("dicom",)
    assert [(each.protocol, each.port) for each in found.connections] == [(Protocol.DICOM, 104), (Protocol.HL7, 2575)]


def test_an_ae_of_several_has_every_dicom_connection_unless_it_names_some() -> None:
    (found,) = parsed(
        {
            "name": "ct-er",
            "connections": [{"name": "plain", "host": "ct1", "port": 104}, {"name": "tls", "host": "ct1", "port": 2762,
                            "tls": True}, {"name": "hl7", "host": "ct1", "port": 2575, "protocol": "HL7"}],
            "aes": [{"ae_title": "CT1"}, {"ae_title": "CT1_TLS", "connections": ["tls"]}],
        }
    ).devices  # fmt: skip
    assert found.aes[0].connections == ("plain", "tls")
    assert found.aes[1].connections == ("tls",)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "it needs an `ae_title`"),
        ({"ae_title": "CT1", "aes": []}, "it has `ae_title` and `aes`"),
        ({"name": "x", "aes": [{"ae_title": "CT1"}], "group": "CT"}, "group is said of an AE"),
        ({"ae_title": "CT1", "port": 104}, "port needs a `host`"),
        ({"ae_title": "CT1", "tls": True}, "write tls_required: true"),
        ({"ae_title": "CT1", "host": "a", "connections": [{"name": "d", "host": "a"}]}, "`host` and `connections`"),
        ({"ae_title": "CT1", "host": "a b"}, "host"),
        ({"ae_title": "CT\\1"}, "ae_title"),
        ({"ae_title": "CT1", "host": "a", "port": 0}, "port"),
        ({"ae_title": "CT1", "host": "a", "tls_suites": ["AES"]}, "tls_suites"),
        ({"ae_title": "CT1", "addresses": ["10.1.2.3/24"]}, "no network"),
        ({"ae_title": "CT1", "may": ["everything"]}, "may"),
        ({"ae_title": "CT1", "capabilities": [{"sop_class": "1.02", "role": "SCU", "transfer_syntaxes": ["1.2"]}]},
         "sop_class"),
    ],
)  # fmt: skip
def test_an_entry_that_cannot_be_meant_is_refused(entry: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parsed(entry)
    assert said in str(caught.value)


# ---- what a caller is bound to ----


def test_an_entry_that_bounds_nothing_is_open() -> None:
    found = served(parsed({"ae_title": "CT1", "host": "ct1", "port": 104})).known["CT1"]
    assert found.access is OPEN
    assert found.installed
    assert found.profile is PLAIN


def test_everything_an_entry_bounds_reaches_the_registry() -> None:
    found = served(
        parsed(
            {"ae_title": "CT1", "description": "CT", "group": "CT", "sites": ["N"], "may": ["worklist"],
             "addresses": ["10.1.2.0/24"], "certificates": ["subject:CT1"], "called": ["GATEWAY"],
             "tls_required": True, "users": True, "mpps_strict": True, "mpps_answers": "dataset"}
        )
    ).known["CT1"]  # fmt: skip
    assert (found.description, found.group, found.sites) == ("CT", "CT", {"N"})
    assert (found.mpps_strict, found.mpps_answers) == (True, MPPSAnswers.DATASET)
    access = found.access
    assert access.may == {Permission.WORKLIST}
    assert access.networks == (ip_network("10.1.2.0/24"),)
    assert access.certificates == (CertificateRule(CertificateRuleKind.SUBJECT, "CT1"),)
    assert access.called == {"GATEWAY"}
    assert access.tls_required
    assert access.user_required


def test_the_certificates_that_a_directory_has_of_a_device_are_those_its_aes_must_show() -> None:
    directory = parsed(
        {"ae_title": "CT1", "own_certificates": ["cn=ct1"], "authorized_certificates": ["cn=pacs"],
         "fingerprints": {"cn=ct1": [FINGERPRINT.upper()], "cn=pacs": ["cd" * 32]}}
    )  # fmt: skip
    rules = served(directory).known["CT1"].access.pinned
    assert rules == (CertificateRule(CertificateRuleKind.FINGERPRINT, FINGERPRINT),)


@pytest.mark.parametrize(
    ("suites", "required"),
    [((TLS_SUITES, TLS_SUITES), True), ((TLS_SUITES, ()), False), (((), ()), False)],
)
def test_who_has_only_tls_connections_calls_by_tls(suites: tuple[tuple[str, ...], ...], required: bool) -> None:
    known = tuple(NetworkConnection(f"c{number}", "ct1", None, said) for number, said in enumerate(suites))
    ae = NetworkAE("CT1", tuple(each.name for each in known))
    assert device(DeviceEntry("ct1", connections=known, aes=(ae,)), ae).access.tls_required is required


def test_who_calls_nobody_by_the_directory_is_no_stranger_whom_anybody_may_be() -> None:
    archive = DeviceEntry("pacs", aes=(NetworkAE("PACS", initiator=False, rules=Rules(addresses=("10.1.2.3",))),))
    found = registry(Directory((archive,)), (), (), accept_unknown=True).device("PACS")
    assert found is not None
    assert not found.installed


def test_a_device_that_is_not_installed_is_known_and_its_aes_too() -> None:
    away = DeviceEntry("ct1", installed=False, aes=(NetworkAE("CT1"), NetworkAE("CT2", installed=True)))
    half = DeviceEntry("mr1", aes=(NetworkAE("MR1", installed=False), NetworkAE("MR2")))
    known = served(Directory((away, half))).known
    assert {title: found.installed for title, found in known.items()} == {
        "CT1": False, "CT2": False, "MR1": False, "MR2": True,
    }  # fmt: skip


def test_only_those_that_call_are_callers() -> None:
    directory = parsed({"ae_title": "PACS", "host": "pacs", "port": 104, "initiator": False}, {"ae_title": "CT1"})
    assert {title for title, found in served(directory).known.items() if found.installed} == {"CT1"}
    assert directory.device_of("PACS") is not None


def test_what_cannot_be_relied_on_is_known_and_not_served_even_where_it_cannot_be_read() -> None:
    directory = Directory((DeviceEntry("ct1", aes=(NetworkAE("CT1", rules=Rules(addresses=("nonsense",))),)),))
    found = served(directory, not_served=("CT1",)).known["CT1"]
    assert not found.installed


def test_the_character_sets_of_an_ae_count_where_its_profile_names_none() -> None:
    fixed = Profile("fixed", character_sets=CharacterSets(fixed=("ISO_IR 144",)))
    own = Profile("own", character_sets=CharacterSets(declared=("ISO_IR 13",)))
    sets = {"character_sets": ["ISO_IR 100", "ISO_IR 999"]}
    known = served(
        parsed(
            {"ae_title": "CT1", **sets},
            {"ae_title": "CT2", **sets},
            {"ae_title": "CT3", "profile": "own", **sets},
            {"ae_title": "CT4", "profile": "fixed", **sets},
        ),
        fixed,
        own,
    ).known
    assert known["CT1"].profile.character_sets.declared == ("ISO_IR 100",)
    assert known["CT1"].profile is known["CT2"].profile  # answers are kept by profile
    assert known["CT3"].profile is own
    assert known["CT4"].profile is fixed


def test_the_group_is_the_first_cluster() -> None:
    devices = served(
        parsed({"ae_title": "CT1", "group": "CT", "groups": ["ER"]}, {"ae_title": "CT2", "groups": ["CT"]})
    )
    assert devices.stations_by_group == {"CT": {"CT1", "CT2"}}


# ---- bounds of groups ----

GROUPS = {
    "CT": DeviceGroupSettings(may=(Permission.WORKLIST,), addresses=("10.1.0.0/16",), tls_required=True),
    "NORTH": DeviceGroupSettings(
        may=(Permission.MPPS,), certificates=("subject:NORTH",), called=("NORTHLIST",), users=True
    ),
}


def of_group(**said: object) -> Access:
    found = registry(
        parsed({"ae_title": "CT1", **said}), (), (), accept_unknown=False, groups=group_rules(GROUPS)
    ).known["CT1"]  # fmt: skip
    return found.access


def test_a_device_is_bound_as_its_group_is() -> None:
    assert of_group(group="CT") == Access(
        may=frozenset({Permission.WORKLIST}), networks=(ip_network("10.1.0.0/16"),), tls_required=True
    )
    assert of_group(group="NORTH", users=False).user_required


def test_what_a_device_says_itself_goes_before_its_group_and_the_rest_of_the_group_holds() -> None:
    access = of_group(group="CT", may=["mpps"])
    assert access == Access(
        may=frozenset({Permission.MPPS}), networks=(ip_network("10.1.0.0/16"),), tls_required=True
    )  # fmt: skip
    assert of_group(group="CT", addresses=["10.9.9.9"]).networks == (ip_network("10.9.9.9"),)
    assert of_group(group="NORTH", called=["MYLIST"]).called == {"MYLIST"}


def test_of_several_groups_the_first_that_says_it_counts() -> None:
    access = of_group(group="CT", groups=["NORTH"])
    assert access.may == {Permission.WORKLIST}
    assert access.called == {"NORTHLIST"}
    assert access.tls_required
    assert access.user_required
    assert of_group(groups=["NORTH", "CT"]).may == {Permission.MPPS}


def test_certificates_that_the_directory_has_of_a_device_are_said_by_it() -> None:
    own = {"own_certificates": ["cn=ct1"], "fingerprints": {"cn=ct1": [FINGERPRINT]}}
    access = of_group(group="NORTH", **own)
    assert access.certificates == ()
    assert access.pinned == (CertificateRule(CertificateRuleKind.FINGERPRINT, FINGERPRINT),)
    assert access.tls_required  # as the group's certificates demand it
    assert of_group(group="NORTH").certificates == (CertificateRule(CertificateRuleKind.SUBJECT, "NORTH"),)


def test_devices_of_other_groups_stay_unbound() -> None:
    assert of_group(group="MR") is OPEN
    assert of_group() is OPEN
