"""A destination that is told by FHIR: what `gateway check` finds, and what the settings make of it."""

from pathlib import Path

import pytest

from gateway.config import ConfigError, load_site
from gateway.destinations import DestinationSettings, connection_of, follows, reloaded
from gateway.domain.progress import Progress
from gateway.edges.fhir_channel import FHIRChannel
from gateway.edges.resolving import Hosts
from gateway.edges.store import Store
from gateway.outgoing import audience_of, deliverer_of, described
from gateway.testing import site
from gateway.wire.fhir_release import Release

FEED = """
fhir:
  images: https://pacs.example/dicomweb
  feeds:
    - {name: emr, url: "https://emr.example/fhir", release: R5, poll: {}}
issuers:
  - {name: EHR, oid: [1.2.3]}
  - {name: RIS, fhir: ["https://ris.example/id"], oid: [1.2.4]}
destinations:
"""


def written(folder: Path, destination: str) -> Path:
    file = site(folder)
    text = file.read_text(encoding="utf-8")
    kept = "\n".join(line for line in text.splitlines() if not line.startswith(("issuers:", "destinations:")))
    file.write_text(f"{kept}\n{FEED}  - {destination}\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("said", "where", "hint"),
    [
        ("{name: e, fhir: {feed: emrr}}", "destinations.0.fhir.feed", "emr"),
        ("{name: e, fhir: {url: 'http://emr.example/fhir'}}", "destinations.0.fhir.url", "https://"),
        ("{name: e, fhir: {feed: emr, tls: {ca: none.pem}}}", "destinations.0.fhir.tls.ca", "relative"),
    ],
)
def test_mistakes_are_told_with_their_place_and_what_to_do(tmp_path: Path, said: str, where: str, hint: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_site(written(tmp_path, said))
    (problem,) = [each for each in refused.value.problems if each.path == where]
    assert hint in problem.hint


def test_a_feed_gives_address_and_release_and_issuers_their_systems(tmp_path: Path) -> None:
    loaded = load_site(written(tmp_path, "{name: e, fhir: {feed: emr}, status: {tell: {held: nothing}}}"))
    audience = audience_of(loaded)
    assert audience.status == ()
    (target,) = audience.fhir
    assert (target.destination, target.feed, target.writing.release) == ("e", "emr", Release.R5)
    assert target.writing.systems == {"EHR": "urn:oid:1.2.3", "RIS": "https://ris.example/id"}
    assert target.tells == frozenset(Progress) - {Progress.HELD}
    assert audience.offered is not None
    assert audience.offered.endpoint == "https://pacs.example/dicomweb"


def test_it_is_described_and_has_a_deliverer_of_its_own(tmp_path: Path) -> None:
    loaded = load_site(written(tmp_path, "{name: e, fhir: {url: 'http://127.0.0.1:9/fhir'}}"))
    (place,) = loaded.settings.destinations
    assert isinstance(place, DestinationSettings)
    assert (place.whereabouts, described(place)) == ("http://127.0.0.1:9/fhir", "FHIR: status")
    with Store(loaded.store_url) as store:
        made = deliverer_of(loaded, place, store, lambda event, **fields: None, None, Hosts())
        assert isinstance(made._channel, FHIRChannel)


def test_a_reload_takes_it_to_where_its_feed_is_now(tmp_path: Path) -> None:
    (before,) = load_site(written(tmp_path, "{name: e, fhir: {feed: emr}}")).settings.destinations
    assert before.whereabouts == "https://emr.example/fhir"
    file = tmp_path / "gateway.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("//emr.example/", "//new.example/"), encoding="utf-8")
    (after,) = load_site(file).settings.destinations
    assert connection_of(before) != connection_of(after)
    assert follows(before, after)
    assert reloaded([before], [after]) == (after,)
