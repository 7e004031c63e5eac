"""Who is let in by the registry, for what, and what becomes of it when the registry changes meanwhile."""

import pytest
from access_peers import (
    ELSEWHERE,
    EVERYTHING,
    OWN,
    associated,
    logged,
    metric,
    permitted,
    rejection,
    reload,
    secured,
    until,
    write_devices,
)
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom.sop_class import ModalityPerformedProcedureStep, ModalityWorklistInformationFind
from ruamel.yaml import YAML

from gateway.answering import PERMITTED, REJECTIONS, Answering
from gateway.config import ConfigError, load_site
from gateway.domain.access import Denial, Permission, User
from gateway.edges.dimse_server import Association
from gateway.edges.dimse_service import Admission
from gateway.testing import site
from gateway.wire.upper_layer import SOP_CLASSES, VERIFICATION

ENTRIES = [
    {"ae_title": "CT1"},
    {"ae_title": "CT2", "addresses": ["127.0.0.1", "10.0.0.0/8"]},
    {"ae_title": "MR1", "called": ["OTHERLIST"]},
    {"ae_title": "US1", "installed": False},
    {"ae_title": "DX1", "tls_required": True},
    {"ae_title": "XA1", "certificates": ["subject:XA1"]},
    {"ae_title": "NM1", "users": True},
    {"ae_title": "READER", "may": ["worklist"]},
    {"ae_title": "REPORTER", "may": ["mpps"]},
    {"ae_title": "PACS", "may": ["mpps-retrieve", "availability"]},
]
LISTS = [{"ae_title": "GATEWAY"}, {"ae_title": "OTHERLIST"}]
NOT_RECOGNISED, NOT_CALLED, NOT_PROVED = (1, 1, 3), (1, 1, 7), (1, 2, 1)


def test_every_denial_is_said_on_the_network_and_none_by_a_reason_of_another_source():
    assert REJECTIONS.keys() == set(Denial)
    allowed = {(1, 1): {1, 2, 3, 7}, (1, 2): {1, 2}, (2, 3): {1, 2}}  # PS3.8 9.3.4
    for said in REJECTIONS.values():
        assert said.reason in allowed[said.result, said.source]


def test_every_permission_is_about_a_sop_class_of_ours_and_verification_about_none():
    assert set(PERMITTED) == set(Permission)
    assert {*PERMITTED.values(), VERIFICATION} == set(SOP_CLASSES)


@pytest.fixture(scope="module", params=[0, 2], ids=["alone", "with workers"])
def service(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("secured")
    with secured(folder, ENTRIES, worklists=LISTS, workers=request.param) as running:
        yield running


@pytest.mark.parametrize(
    ("ae_title", "how", "expected", "reason"),
    [
        ("CT1", {}, None, ""),
        ("CT1", {"source": ELSEWHERE}, None, ""),
        ("CT1", {"called": "NOBODY"}, NOT_CALLED, "called_unknown"),
        ("STRANGER", {}, NOT_RECOGNISED, "calling_unknown"),
        ("CT2", {}, None, ""),
        ("CT2", {"source": ELSEWHERE}, NOT_RECOGNISED, "address"),
        ("MR1", {}, NOT_CALLED, "called_not_allowed"),
        ("MR1", {"called": "OTHERLIST"}, None, ""),
        ("US1", {}, NOT_RECOGNISED, "not_installed"),
        ("DX1", {}, NOT_RECOGNISED, "plain"),
        ("XA1", {}, NOT_RECOGNISED, "plain"),
        ("NM1", {}, NOT_PROVED, "no_user"),
    ],
)
def test_a_caller_is_let_in_or_refused_by_the_reason_of_the_standard(service, ae_title, how, expected, reason):
    before = len(logged(service, "caller_denied"))
    assert rejection(service, ae_title, **how) == expected
    if expected is None:
        return
    until(lambda: len(logged(service, "caller_denied")) > before, service)
    line = logged(service, "caller_denied")[-1]
    assert (line["calling_ae_title"], line["reason"]) == (ae_title, reason)
    assert line["remote_host"] == how.get("source", OWN)
    until(lambda: metric(service, f'gateway_callers_denied_total{{reason="{reason}"}}') >= 1, service)


@pytest.mark.parametrize(
    ("ae_title", "may"),
    [
        ("CT1", set(EVERYTHING)),
        ("READER", {"verification", "worklist"}),
        ("REPORTER", {"verification", "mpps"}),
        ("PACS", {"verification", "mpps-retrieve", "availability"}),
    ],
)
def test_contexts_of_what_a_device_may_not_do_are_refused_and_echo_never_is(service, ae_title, may):
    with associated(service, ae_title) as association:
        assert permitted(association) == may
        assert association.send_c_echo().Status == 0


def test_a_name_of_a_user_is_in_no_log(service):
    with associated(service, "NM1", user="markeduser7731") as association:
        assert not association.is_established
    until(lambda: any(each["reason"] in ("user", "no_user") for each in logged(service, "caller_denied")), service)
    assert "markeduser7731" not in service.output.read_text()


# What is taken away while an association is open


def find(association):
    query = Dataset()
    query.PatientID = ""
    return [status for status, _ in association.send_c_find(query, ModalityWorklistInformationFind)][-1].Status


def create(association):
    incomplete = Dataset()
    incomplete.Modality = "CT"
    status, _ = association.send_n_create(incomplete, ModalityPerformedProcedureStep, generate_uid(None))
    return status.Status


TAKEN_AWAY = {
    "only mpps": ({"may": ["mpps"]}, 0xC001, 0x0120),
    "only worklist": ({"may": ["worklist"]}, 0x0000, 0x0124),
    "gone": (None, 0xC001, 0x0124),
    "moved": ({"addresses": [ELSEWHERE]}, 0xC001, 0x0124),
    "not installed": ({"installed": False}, 0xC001, 0x0124),
}


@pytest.mark.parametrize(
    ("workers", "what"),
    [*((0, what) for what in TAKEN_AWAY), (1, "only mpps"), (1, "only worklist"), (1, "gone")],
    ids=lambda value: f"{value} workers" if isinstance(value, int) else value,
)
def test_a_reload_takes_permissions_from_open_associations(tmp_path, workers, what):
    """The same code decides in a worker: one case each way shows that it follows."""
    entry, worklist, mpps = TAKEN_AWAY[what]
    with (
        secured(tmp_path, [{"ae_title": "CT1"}, {"ae_title": "CT2"}], workers=workers) as service,
        associated(service, "CT1") as association,
        associated(service, "CT2") as other,
    ):
        assert find(association) == 0
        assert create(association) == 0x0120  # taken for what it is: incomplete
        write_devices(tmp_path, [*([] if entry is None else [{"ae_title": "CT1", **entry}]), {"ae_title": "CT2"}])
        reload(service, workers)
        assert find(association) == worklist
        assert create(association) == mpps
        assert find(other) == 0
        assert association.send_c_echo().Status == 0


def test_a_group_bounds_its_devices_and_a_reload_takes_it_from_open_associations(tmp_path):
    entries = [
        {"ae_title": "CT1", "group": "CT"}, {"ae_title": "CT2", "group": "CT", "may": ["mpps"]}, {"ae_title": "MR1"},
    ]  # fmt: skip
    groups = {"CT": {"may": ["worklist"], "addresses": [OWN]}}
    with secured(tmp_path, entries, devices={"groups": groups}) as service:
        assert rejection(service, "CT1", source=ELSEWHERE) == NOT_RECOGNISED
        assert rejection(service, "CT2", source=ELSEWHERE) == NOT_RECOGNISED
        assert rejection(service, "MR1", source=ELSEWHERE) is None
        with associated(service, "CT2") as association:
            assert permitted(association) == {"verification", "mpps"}
        with associated(service, "CT1") as association:
            assert permitted(association) == {"verification", "worklist"}
            assert find(association) == 0
            settings = YAML(typ="safe").load(service.config.read_text())
            settings["devices"]["groups"]["CT"]["may"] = ["mpps"]
            with service.config.open("w") as file:
                YAML().dump(settings, file)
            reload(service)
            assert find(association) == 0xC001


# Without a network


def association(ae_title="CT1", user=None, host=OWN):
    return Association(1, ae_title, "GATEWAY", host, "", 0, user=user)


def answering(folder, denied, entries, **settings):
    write_devices(folder, entries)
    loaded = load_site(site(folder, devices={"file": "devices.yaml", **settings.pop("devices", {})}, **settings))
    return Answering(loaded, None, None, lambda _: None, lambda who, why: denied.append(why))


@pytest.mark.parametrize(
    ("user", "expected"),
    [(None, Denial.NO_USER), (User("ann", 1, False), Denial.USER), (User("ann", 2, True), None)],
)
def test_users_may_be_required_of_everybody_also_of_unknown_callers(tmp_path, user, expected):
    said = []
    users = {"required": True, "trust_names": True}
    asked = answering(tmp_path, said, [{"ae_title": "CT1"}], users=users, devices={"unknown": "accept"})
    for title in ("CT1", "STRANGER"):
        answer = asked.admit(association(title, user))
        assert answer == (None if expected is None else REJECTIONS[expected])
    assert said == ([] if expected is None else [expected] * 2)


def test_an_unknown_caller_that_is_accepted_is_bound_to_nothing(tmp_path):
    asked = answering(tmp_path, [], [{"ae_title": "CT1", "may": ["mpps"]}], devices={"unknown": "accept"})
    assert asked.admit(association("STRANGER", host="192.0.2.1")) is None
    assert asked.admit(association("CT1")) == Admission(frozenset({VERIFICATION, PERMITTED[Permission.MPPS]}))


def test_permissions_for_everything_that_dicom_has_are_no_bounds(tmp_path):
    may = [str(each) for each in PERMITTED]
    asked = answering(tmp_path, [], [{"ae_title": "CT1", "may": may}], devices={"unknown": "reject"})
    assert asked.admit(association()) is None


def test_a_group_that_nobody_is_in_is_a_doubt_and_one_that_may_call_a_list_that_is_none_a_problem(tmp_path):
    write_devices(tmp_path, [{"ae_title": "CT1", "group": "CT"}])
    devices = {"file": "devices.yaml", "groups": {"CT": {"called": ["OTHERLIST"]}, "MR": {"may": ["mpps"]}}}
    loaded = load_site(site(tmp_path, devices=devices, worklists=LISTS))
    assert [(each.path, each.text) for each in loaded.doubts if "groups" in each.path] == [
        ("devices.groups.MR", "no device is in group MR")
    ]
    with pytest.raises(ConfigError) as refused:
        load_site(site(tmp_path, devices=devices, worklists=LISTS[:1]))
    assert [each.path for each in refused.value.problems] == ["devices.groups.CT.called"]
