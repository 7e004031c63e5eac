"""Golden cases: a message beside a mapping and the transcript that it must give (`gateway mappings test`)."""

from gateway.domain.mapping import Mapping, MappingResult
from gateway.domain.refusal import Refused
from gateway.domain.transcript import Readable, refused, transcript
from gateway.wire import fhir_json
from gateway.wire.er7 import parse
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_source import Reading, bundle_graph, documents
from gateway.wire.fhir_states import IMAGING_CATEGORIES
from gateway.wire.hl7_source import document


def case_outcome(
    mapping: Mapping, data: bytes, *, default_issuer: str = "", default_charset: str = "ascii"
) -> Readable:
    """What an HL7 v2 message (any line ends) gives: its transcript, also where it is refused before the mapping."""
    try:
        result = mapping.apply(document(parse(data, default_charset)), default_issuer=default_issuer)
    except Refused as no:
        return refused(no.refusals)
    return transcript(result)


def fhir_case_outcome(mapping: Mapping, data: bytes, *, default_issuer: str = "") -> Readable:
    """The same of a FHIR resource or Bundle (JSON), with nothing held that it could refer to."""
    reading = Reading(Release(mapping.language), IMAGING_CATEGORIES, mapping.issuers)
    try:
        told = list(documents(bundle_graph(fhir_json.parse(data)), reading))
    except Refused as no:
        return refused(no.refusals)
    results = [mapping.apply(each, default_issuer=default_issuer) for each in told if each.entries]
    refusals = tuple(refusal for result in results for refusal in result.refusals)
    events = () if refusals else tuple(event for result in results for event in result.events)
    waiting = [note for each in told if not each.entries for note in each.notes]
    notes = (*waiting, *(note for result in results for note in result.notes))
    return transcript(MappingResult(events, refusals=refusals, notes=tuple(dict.fromkeys(notes))))
