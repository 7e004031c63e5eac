"""The registry files: what `gateway check` says of each mistake, and what a device's profile becomes."""

from pathlib import Path

import pytest

from gateway import examples
from gateway.config import ConfigError, load_site
from gateway.domain.devices import PLAIN, CannotShow, DateWindow, Leaves, Sees, WhenMore


@pytest.fixture
def folder(tmp_path):
    examples.lay_out(tmp_path / "site")
    return tmp_path / "site"


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")


def problems(folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_site(folder / "gateway.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_every_shipped_profile_loads_and_gives_a_reason(folder):
    profiles = load_site(folder / "gateway.yaml").devices.profiles
    assert len(profiles) >= 10
    assert all(len(profile.reason) > 30 for profile in profiles.values())


def test_a_profile_is_what_its_entry_says(folder):
    write(
        folder,
        "profiles.yaml",
        """
profiles:
  - name: everything
    reason: to see that each rule arrives
    sees: group
    ignore: [Modality, "00091010"]
    force: {ScheduledStationAETitle: "{ae_title}"}
    fill: {PatientSex: O}
    answers_max: 7
    when_more: success
    leaves: IN PROGRESS
    character_sets:
      declared: [ISO_IR 144]
      fixed: [ISO 2022 IR 13, ISO 2022 IR 87]
      cannot_show: replace
      assumed: [ISO_IR 144]
    date_window: {days_before: 1, days_after: 2}
    empty_values: true
    whole_names: true
""",
    )
    write(folder, "devices.yaml", "devices:\n  - {ae_title: CT1, profile: everything}\n  - {ae_title: MR1}\n")
    devices = load_site(folder / "gateway.yaml").devices
    profile = devices.known["CT1"].profile
    assert profile.sees is Sees.GROUP
    assert profile.ignore == ("Modality", "00091010")
    assert profile.force == (("ScheduledStationAETitle", "CT1"),)
    assert profile.fill == (("PatientSex", "O"),)
    assert (profile.answers_max, profile.when_more, profile.leaves) == (7, WhenMore.SUCCESS, Leaves.IN_PROGRESS)
    assert profile.character_sets.fixed == ("ISO 2022 IR 13", "ISO 2022 IR 87")
    assert profile.character_sets.cannot_show is CannotShow.REPLACE
    assert profile.character_sets.declared == profile.character_sets.assumed == ("ISO_IR 144",)
    assert profile.date_window == DateWindow(1, 2)
    assert profile.empty_values
    assert profile.whole_names
    assert devices.known["MR1"].profile is PLAIN


def test_a_devices_own_word_overrules_its_profile(folder):
    write(folder, "devices.yaml", "devices:\n  - {ae_title: CT1, profile: own-list, sees: all}\n")
    devices = load_site(folder / "gateway.yaml").devices
    assert devices.known["CT1"].profile.sees is Sees.ALL
    assert devices.profiles["own-list"].sees is Sees.OWN


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("ignore: [PatientNam]", "PatientNam is neither a keyword of the worklist nor a tag"),
        ("ignore: ['0009101']", "0009101 is neither a keyword"),
        ("ignore: [00091010]", "should be text; put it into quotes"),
        ("force: {PatientNam: DOE}", "PatientNam is no worklist key"),
        ("force: {RequestedProcedureCodeSequence: X}", "RequestedProcedureCodeSequence is no worklist key"),
        ("force: {ScheduledProcedureStepStartDate: tomorrow}", "the key is no date"),
        ("fill: {PatientSex: ''}", "PatientSex cannot hold this value"),
        ("fill: {AccessionNumber: '12345678901234567'}", "AccessionNumber cannot hold this value"),
        ("fill: {PregnancyStatus: abc}", "PregnancyStatus cannot hold this value"),
        ("fill: {PregnancyStatus: '70000'}", "PregnancyStatus cannot hold this value"),
        ("character_sets: {fixed: ['']}", "an empty text is no defined term"),
        ("character_sets: {fixed: [latin one]}", "latin one is no defined term"),
        ("character_sets: {fixed: [ISO_IR 999]}", "ISO_IR 999 is no defined term"),
        ("sees: some", "should be 'all', 'own' or 'group'"),
        ("answers_max: -1", "greater than or equal to 0"),
        ("date_window: {days_before: 1, days: 2}", "unknown key"),
        ("colour: red", "unknown key"),
    ],
)
def test_a_profile_that_cannot_be_meant_is_named_with_its_file_and_line(folder, entry, expected):
    write(folder, "profiles.yaml", f"profiles:\n  - name: mine\n    reason: a mistake\n    {entry}\n")
    (problem,) = [text for text in problems(folder) if text.startswith("profiles.yaml:")]
    assert expected in problem


def test_a_profile_without_a_reason_is_refused(folder):
    write(folder, "profiles.yaml", "profiles:\n  - name: mine\n")
    assert any("reason" in text for text in problems(folder))


def test_what_names_nothing_is_named_all_at_once(folder):
    write(
        folder,
        "devices.yaml",
        "devices:\n  - {ae_title: CT1, profile: nobodys, sites: [MOON]}\n  - {ae_title: CT1}\n",
    )
    with (folder / "gateway.yaml").open("a", encoding="utf-8") as file:
        file.write("worklists:\n  - {ae_title: A, groups: [XR], sites: [MARS]}\n  - {ae_title: A}\n")
    text = "\n".join(problems(folder))
    assert "there is no profile nobodys" in text
    assert "own-list" in text
    assert "no orders of site MOON come here" in text
    assert "no orders of site MARS come here" in text
    assert "no device is in group XR" in text
    assert "AE title: CT1 is listed twice" in text
    assert "worklist: A is listed twice" in text


def test_called_worklists_and_sites_reach_the_registry(folder):
    config = (
        (folder / "gateway.yaml")
        .read_text(encoding="utf-8")
        .replace("mapping: ihe-swf", "site: NORTH\n    mapping: ihe-swf")
    )
    config = config.replace("unknown: accept", "unknown: reject")
    write(folder, "gateway.yaml", config + "worklists:\n  - {ae_title: NORTH_CT, sites: [NORTH], modalities: [CT]}\n")
    devices = load_site(folder / "gateway.yaml").devices
    worklist = devices.worklist("NORTH_CT")
    assert worklist is not None
    assert (worklist.sites, worklist.modalities) == ({"NORTH"}, {"CT"})
    assert devices.worklist("GATEWAY") is None


def test_without_worklists_any_called_ae_title_means_the_whole_list(folder):
    worklist = load_site(folder / "gateway.yaml").devices.worklist("WHATEVER")
    assert worklist is not None
    assert not (worklist.sites)
    assert not (worklist.groups)
    assert not (worklist.modalities)


@pytest.mark.parametrize(("said", "accepted"), [("unknown: accept", None), ("unknown: reject", False), ("", False)])
def test_where_there_are_sites_no_stranger_sees_them_all(folder, said, accepted):
    config = (folder / "gateway.yaml").read_text(encoding="utf-8")
    config = config.replace("mapping: ihe-swf", "site: NORTH\n    mapping: ihe-swf").replace("unknown: accept", said)
    write(folder, "gateway.yaml", config)
    if accepted is None:
        assert any("an unknown caller would see the orders of every site" in text for text in problems(folder))
    else:
        assert load_site(folder / "gateway.yaml").devices.accept_unknown is accepted


_FROM_NORTH = "{name: emr, url: 'https://emr.example/fhir', site: NORTH, poll: {}}"


@pytest.mark.parametrize("fhir", ["{site: NORTH}", f"{{feeds: [{_FROM_NORTH}]}}"], ids=["our server", "a feed"])
def test_a_site_that_only_fhir_names_is_a_site(folder, fhir):
    config = (folder / "gateway.yaml").read_text(encoding="utf-8")
    write(folder, "devices.yaml", "devices:\n  - {ae_title: CT1, sites: [NORTH]}\n")
    more = (
        f"fhir: {fhir}\nworklists:\n  - {{ae_title: NORTH_CT, sites: [NORTH]}}\n"
        "destinations:\n  - {name: ris, host: ris.example, port: 2576, status: {sites: [NORTH]}}\n"
    )
    write(folder, "gateway.yaml", config + more)
    (problem,) = problems(folder)
    assert "an unknown caller would see the orders of every site" in problem
    write(folder, "gateway.yaml", config.replace("unknown: accept", "") + more)
    loaded = load_site(folder / "gateway.yaml")
    assert loaded.settings.sites == {"NORTH"}
    assert not loaded.devices.accept_unknown


# ---- stations of the mappings folder ----


def doubts(folder: Path, devices: str, unknown: str) -> list[str]:
    """What is told of stations that the example's catalogue does not have: CT2 is written otherwise in the registry."""
    config = folder / "gateway.yaml"
    config.write_text(config.read_text().replace("unknown: accept", f"unknown: {unknown}"))
    write(folder, "devices.yaml", devices)
    write(folder / "mappings", "procedures.csv", "code,modality,station_ae_titles\nA,CT,CT1\nB,CT,CT-2 ROOM9\n")
    write(folder / "mappings", "stations.csv", "modality,station_ae_titles\nCT,CT1\n")
    return [str(problem) for problem in load_site(config).doubts]


REGISTERED = "devices:\n  - {ae_title: CT1}\n  - {ae_title: CT_2}\n"


def test_a_station_that_would_be_turned_away_is_a_doubt(folder):
    assert doubts(folder, REGISTERED, "reject") == [
        "procedures.csv:3 station_ae_titles: 'CT-2' is not in devices.yaml, so this station would not be served "
        "(did you mean CT_2? Otherwise add it to devices.yaml)",
        "procedures.csv:3 station_ae_titles: 'ROOM9' is not in devices.yaml, so this station would not be served "
        "(add it to devices.yaml)",
    ]


def test_where_anyone_may_call_any_station_is_fine(folder):
    assert not doubts(folder, REGISTERED, "accept")


def test_an_empty_registry_says_nothing_of_stations(folder):
    assert not doubts(folder, "devices: []\n", "reject")
