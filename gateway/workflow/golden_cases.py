"""Golden cases: a message beside a mapping and the transcript that it must give (`gateway mappings test`)."""

from gateway.domain.mapping import Mapping
from gateway.domain.refusal import Refused
from gateway.domain.transcript import Readable, refused, transcript
from gateway.wire.er7 import parse
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
