"""The section on FHIR of the mapping language's reference page, from the tables that the compiler reads."""

from collections.abc import Iterable

from gateway.markdown import code, table
from gateway.wire.fhir_datatypes import DATATYPES
from gateway.wire.fhir_functions import FUNCTIONS, NOT_HERE, VARIABLES
from gateway.wire.fhir_paths import ROOTS


def language() -> Iterable[str]:
    """What is otherwise where a rule set has `fhir:`."""
    yield "## Rule sets of FHIR"
    yield ""
    yield "A rule set with `fhir: R4` (R4B, R5) at its top is a file in `mappings/fhir`; its name is no other"
    yield "rule set's, of HL7 v2 neither. The language is the same, but every path is a FHIRPath expression that"
    yield "begins with a"
    yield f"resource of the entry: {', '.join(map(code, ROOTS))}. Everything else is behind `resolve()`."
    yield "An overlay may name another release than its base, and then says anew what is otherwise there."
    yield ""
    yield "    PatientBirthDate: {from: Patient.birthDate, convert: birth-date}"
    yield "    RequestingPhysician: {from: ServiceRequest.requester.resolve().ofType(Practitioner), convert: xcn}"
    yield "    PatientWeight:"
    yield "      from: Observation.where(code.coding.exists(code = '29463-7')).value"
    yield "      with: Observation.value.unit"
    yield "      convert: weight"
    yield ""
    yield "`with:` and `select:` look at the one resource that a value is of, `when:` and `unless:` at all of the"
    yield "entry. Conditions compare the first component of what is found. The compiler refuses elements, types,"
    yield "functions and variables that the release does not have, and says which was likely meant. It also"
    yield "refuses what FHIRPath would answer with nothing as soon as an element is there twice:"
    yield "`code.coding.code = 'X'` is never true of a concept with two codings; `code.coding.exists(code = 'X')`"
    yield "is. A choice is one element: `value`, not `valueQuantity`; `value.ofType(Quantity)` picks a type."
    yield ""
    yield from table(("Variable", "Is"), ((code(f"%{name}"), told) for name, told in VARIABLES.items()))
    yield f"Functions: {', '.join(map(code, sorted(FUNCTIONS)))}."
    yield ""
    yield from table(("Not taken", "Because"), ((code(f"{name}()"), why) for name, why in NOT_HERE.items()))
    yield "### FHIR values as HL7 v2 data types"
    yield ""
    yield "A value of FHIR is read as the HL7 v2 data type that corresponds to it, so converters, tables, edits"
    yield "and picks do the same for both: `pick: {5: MR}` is the identifier type of an Identifier. An expression"
    yield "that ends at anything else is refused; a choice (`value`) has to have one of these, and is silent"
    yield "where it has another."
    yield ""
    rows: dict[tuple[str, str], list[str]] = {}
    for row in DATATYPES.values():
        rows.setdefault((row.hl7, row.components), []).append(row.name)
    yield from table(
        ("FHIR", "HL7 v2", "Components"),
        ((", ".join(names), hl7, components) for (hl7, components), names in rows.items()),
    )
    yield "The authority of an Identifier is its system: the registry's name where `issuers` knows it; an OID is"
    yield "the universal ID, of type ISO; another URI that nobody knows is one of type URI, with the display of"
    yield "its assigner as namespace. Without a system it is the listener's `issuer`."
    yield ""
