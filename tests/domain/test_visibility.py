"""What a caller may see: sites, groups, own station, status and the date window; and the reasons it gives."""

import itertools
from datetime import date

import pytest

from gateway.domain.attributes import SPS_SEQUENCE, TAG, element
from gateway.domain.devices import CalledWorklist, DateWindow, Device, Devices, Leaves, Profile, Sees
from gateway.domain.matching import MatchingRules, Narrowing, compile_query
from gateway.domain.visibility import view_of
from gateway.domain.worklist import LISTED, SPSStatus, WorklistItem

TODAY = date(2026, 7, 5)
WHOLE = CalledWorklist("GATEWAY")
ANYTHING = Narrowing()


def item(*stations, site="", status=SPSStatus.SCHEDULED, modality="CT", day="20260705"):
    step = {
        TAG["ScheduledStationAETitle"]: element("ScheduledStationAETitle", *stations),
        TAG["Modality"]: element("Modality", modality),
        TAG["ScheduledProcedureStepStartDate"]: element("ScheduledProcedureStepStartDate", day),
    }
    return WorklistItem(1, 1, status, {SPS_SEQUENCE: {"vr": "SQ", "Value": [step]}}, site)


def devices(*known, worklists=()):
    return Devices.of(known, accept_unknown=True, worklists=worklists)


def shown(view, held, asked=ANYTHING):
    """Whether the view admits the item; its reasons have to say the same, and the narrowing must not hide it."""
    admitted = view.admits(held, asked)
    assert admitted is (view.reasons(held, asked) == ())
    return admitted


def view(device, worklist=WHOLE, *others):
    return view_of(devices(device, *others), device, worklist, TODAY)


@pytest.mark.parametrize(
    ("sees", "stations", "expected"),
    [
        (Sees.ALL, ("MR1",), True),
        (Sees.ALL, (), True),
        (Sees.OWN, ("CT1",), True),
        (Sees.OWN, ("MR1", "CT1"), True),
        (Sees.OWN, ("CT2",), False),
        (Sees.OWN, (), False),
        (Sees.GROUP, ("CT1",), True),
        (Sees.GROUP, ("CT2",), True),
        (Sees.GROUP, ("MR1",), False),
    ],
)
def test_a_device_sees_all_its_own_or_its_groups_steps(sees, stations, expected):
    ours = Device("CT1", group="CT", profile=Profile(sees=sees))
    others = Device("CT2", group="CT"), Device("MR1", group="MR")
    assert shown(view(ours, WHOLE, *others), item(*stations)) is expected


def test_a_device_of_no_group_that_sees_its_group_sees_its_own_steps():
    assert shown(view(Device("CT1", profile=Profile(sees=Sees.GROUP))), item("CT1"))
    assert not shown(view(Device("CT1", profile=Profile(sees=Sees.GROUP))), item("CT2"))


SITES = ("", "NORTH", "SOUTH")


@pytest.mark.parametrize(
    ("device_site", "worklist_site", "item_site"), list(itertools.product(("", "NORTH"), SITES, SITES))
)
def test_a_bounded_device_or_worklist_never_shows_another_sites_order(device_site, worklist_site, item_site):
    device = Device("CT1", sites=frozenset({device_site} - {""}))
    worklist = CalledWorklist("LIST", sites=frozenset({worklist_site} - {""}))
    allowed = all(bound in ("", item_site) for bound in (device_site, worklist_site))
    assert shown(view(device, worklist), item("CT1", site=item_site)) is allowed


def test_an_order_of_no_site_is_hidden_from_a_device_of_a_site():
    assert not shown(view(Device("CT1", sites=frozenset({"NORTH"}))), item("CT1"))


def test_a_called_worklist_holds_its_groups_and_modalities():
    ct, mr = Device("CT1", group="CT"), Device("MR1", group="MR")
    by_group, by_modality = (
        CalledWorklist("A", groups=frozenset({"CT"})),
        CalledWorklist("B", modalities=frozenset({"MR"})),
    )
    assert shown(view(ct, by_group, mr), item("CT1"))
    assert not shown(view(ct, by_group, mr), item("MR1"))
    assert shown(view(ct, by_modality, mr), item("CT1", modality="MR"))
    assert not shown(view(ct, by_modality, mr), item("CT1", modality="CT"))


@pytest.mark.parametrize("status", SPSStatus)
@pytest.mark.parametrize("leaves", Leaves)
def test_a_step_leaves_the_list_when_the_profile_says(leaves, status):
    gone = status is SPSStatus.STARTED and leaves is Leaves.IN_PROGRESS
    profile = Profile(leaves=leaves)
    expected = status in LISTED and not gone
    held = item("CT1", status=status)
    assert shown(view(Device("CT1", profile=profile)), held) is expected
    assert (status in view(Device("CT1", profile=profile)).narrow(ANYTHING).statuses) is expected


WINDOW = Profile(date_window=DateWindow(1, 2))


@pytest.mark.parametrize(
    ("day", "expected"),
    [("20260703", False), ("20260704", True), ("20260705", True), ("20260707", True), ("20260708", False), ("", False)],
)
def test_a_query_for_everything_shows_the_days_of_the_window(day, expected):
    held = item("CT1", day=day) if day else item("CT1", day="")
    assert shown(view(Device("CT1", profile=WINDOW)), held) is expected


@pytest.mark.parametrize(
    "asked",
    [
        ("PatientID", "100"),
        ("PatientID", "1*"),
        ("PatientName", "Doe*"),
        ("PatientName", "*oe^J*"),
        ("AccessionNumber", "A1"),
        ("FillerOrderNumberImagingServiceRequest", "F1"),
        ("ScheduledProcedureStepID", "S*"),
        ("ScheduledProcedureStepStartDate", "20250101"),
        ("ScheduledProcedureStepStartDate", "00010101-99991231"),
    ],
)
@pytest.mark.parametrize("fuzzy", [False, True])
def test_whoever_is_asked_for_by_date_name_or_number_is_found_on_any_day(asked, fuzzy):
    key = {TAG[asked[0]]: element(*asked)}
    keys = {SPS_SEQUENCE: {"vr": "SQ", "Value": [key]}} if asked[0].startswith("ScheduledProcedureStep") else key
    asked = compile_query(keys, MatchingRules(fuzzy_names=fuzzy)).narrowing()
    windowed = view(Device("CT1", profile=WINDOW))
    assert shown(windowed, item("CT1", day="20250101"), asked)
    assert windowed.narrow(asked).start_from == asked.start_from


@pytest.mark.parametrize(
    ("keyword", "value"), [("Modality", "CT"), ("ScheduledStationAETitle", "CT1"), ("ScheduledProcedureStepID", "*")]
)
def test_a_query_that_names_nobody_and_no_day_is_kept_to_the_days_of_the_window(keyword, value):
    keys = {TAG["PatientName"]: element("PatientName", "*"), TAG["PatientID"]: element("PatientID")}
    step = {TAG[keyword]: element(keyword, value)}
    asked = compile_query(keys | {SPS_SEQUENCE: {"vr": "SQ", "Value": [step]}}).narrowing()
    assert not shown(view(Device("CT1", profile=WINDOW)), item("CT1", day="20250101"), asked)


def test_the_days_of_the_window_end_with_the_last_leap_second():
    until = view(Device("CT1", profile=WINDOW)).narrow(ANYTHING).start_to
    assert until >= "20260707235960"


def test_a_query_that_names_other_stations_does_not_widen_the_view():
    own = view(Device("CT1", profile=Profile(sees=Sees.OWN)))
    asked = Narrowing(station_ae_titles=frozenset({"MR1"}))
    assert own.narrow(asked).station_ae_titles == {"MR1"}
    assert not shown(own, item("MR1"), asked)
    assert shown(own, item("MR1", "CT1"), asked)


def test_reasons_say_what_is_held_and_what_is_seen():
    device = Device("CT1", sites=frozenset({"NORTH"}), profile=Profile(sees=Sees.OWN, leaves=Leaves.IN_PROGRESS))
    reasons = view(device).reasons(item("MR1", site="SOUTH", status=SPSStatus.STARTED), ANYTHING)
    assert len(reasons) == 3
    status, site, station = reasons
    assert "STARTED" in status
    assert "SOUTH" in site
    assert "NORTH" in site
    assert "MR1" in station
    assert "CT1" in station
