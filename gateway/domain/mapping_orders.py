"""What the entries of a document say of orders: grouped by their keys into orders, requested procedures and steps.

Grouping is never by position, so a feed may put its keys where it likes. The procedure catalogue fills what is lacking.
Nothing here knows of orders already held: that is `order_change`.
"""

from collections import abc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from gateway.domain.attributes import LENGTH_MAX, TAG, Attributes, Element, Level, code_item, text, values
from gateway.domain.catalogue import CatalogueProcedure, CatalogueStep, Stated
from gateway.domain.converters import Unconvertible, ei, part, scheme_designator
from gateway.domain.identifiers import Identifier
from gateway.domain.mapping_identifiers import put_issuer
from gateway.domain.mapping_patients import patient_of, visit_of
from gateway.domain.mapping_reading import Key, Reading
from gateway.domain.moments import other_day
from gateway.domain.order import (
    Effect,
    OrderControl,
    OrderEvent,
    Policy,
    ProcedureInput,
    StepInput,
    Takes,
    Unheld,
    effect_of,
)
from gateway.domain.refusal import RefusalKind
from gateway.domain.source import Entry, Path

_STATING = ("Modality", "ScheduledProtocolCodeSequence", "ScheduledStationAETitle")
_DERIVED_INTO_SH = ("AccessionNumber", "RequestedProcedureID")
_CODES = TAG["RequestedProcedureCodeSequence"]


def orders(reading: Reading, entries: Sequence[Entry]) -> list[OrderEvent]:
    """The order events of entries; what is wrong with them is in `reading.refusals`."""
    return _orders(reading, [_Said(entry, _keys(reading, entry)) for entry in entries], scheduling=False)


def appointments(reading: Reading, entries: Sequence[Entry]) -> list[OrderEvent]:
    """The same of appointments.

    One that names an order says where and when its steps are; one that names none is an order itself, known by the
    number of the appointment.
    """
    return _orders(reading, [_Said(entry, _keys(reading, entry)) for entry in entries], scheduling=True)


class _Keys(NamedTuple):
    """The keys that one entry says."""

    placer: Key | None
    filler: Key | None
    accession: Key | None
    study_instance_uid: str
    requested_procedure_id: str
    sps_id: str
    of_appointment: bool
    """Whether the numbers are those of an appointment that names no order."""

    @property
    def order(self) -> tuple[str, Identifier] | None:
        """What makes two entries one order: the placer number, else the filler number."""
        if self.placer:
            return "placer", self.placer.identifier
        return ("filler", self.filler.identifier) if self.filler else None


class _Said(NamedTuple):
    entry: Entry
    keys: _Keys


def _orders(reading: Reading, said: Sequence[_Said], scheduling: bool) -> list[OrderEvent]:
    """Entries with one order number and one order control are one event."""
    groups: dict[object, list[_Said]] = {}
    order_of_study: dict[str, object] = {}
    for number, one in enumerate(said):
        keys, entry = one.keys, one.entry
        accession = keys.accession.identifier if keys.accession else None
        order = keys.order or (accession or keys.study_instance_uid or number)
        if keys.order is None and accession is None and not keys.study_instance_uid:
            if _effect(entry).unheld is Unheld.NOTED:
                reading.notes.append(f"{entry.where} names no order by its number; no change")
                continue
            reading.refuse(
                RefusalKind.MISSING_FIELD, reading.place("PlacerOrderNumberImagingServiceRequest", entry),
                "the order has neither a placer nor a filler order number, accession number or Study Instance UID",
                "send at least one of them: it is what a later change or cancel refers to",
            )  # fmt: skip
        if keys.study_instance_uid and order_of_study.setdefault(keys.study_instance_uid, order) != order:
            reading.refuse(
                RefusalKind.DUPLICATE_KEY, reading.place("PlacerOrderNumberImagingServiceRequest", entry),
                "two orders of this message share one Study Instance UID",
                "give each order its own, or use one order number for both",
            )  # fmt: skip
        groups.setdefault((order, entry.control, entry.order_status), []).append(one)
    return [_order(reading, group, number, scheduling) for number, group in enumerate(groups.values(), 1)]


def _effect(entry: Entry) -> Effect:
    return effect_of(entry.control or OrderControl.NW, entry.order_status)


def _order(reading: Reading, said: Sequence[_Said], number: int, scheduling: bool) -> OrderEvent:
    entry = _joined([one.entry for one in said])
    control = entry.control or OrderControl.NW
    effect = _effect(entry)
    keys_only = effect.takes not in (Takes.EVERYTHING, Takes.HELD)
    reading.subject = f"order {number}"
    keys = _joined_keys(said)
    placer, filler = keys.placer, keys.filler
    # A cancel needs its keys only: nothing else in it may be a reason to leave the procedure on the list. Whose a held
    # order is, is known.
    patient = patient_of(reading, entry, complete=not keys_only, required=effect.unheld is Unheld.CREATED)
    visit = None if keys_only else visit_of(reading, entry)
    if not keys_only:
        reading.require("PlacerOrderNumberImagingServiceRequest", placer, entry)
        reading.require("FillerOrderNumberImagingServiceRequest", filler, entry)
    attributes = {} if keys_only else reading.attributes(Level.ORDER, entry)
    reading.put_key(attributes, "PlacerOrderNumberImagingServiceRequest", "OrderPlacerIdentifierSequence", placer)
    reading.put_key(attributes, "FillerOrderNumberImagingServiceRequest", "OrderFillerIdentifierSequence", filler)
    procedures = tuple(
        _procedure(reading, group, control, keys_only, f"order {number}, procedure {n}")
        for n, group in enumerate(_by_procedure(reading, said), 1)
    )
    if scheduling and not keys.of_appointment and not keys_only:
        procedures = tuple(map(moved, procedures))
    reading.subject = f"order {number}"
    policies = _policies(reading, entry, placer, filler, procedures, keys_only)
    return OrderEvent(
        control,
        entry.order_status,
        placer.identifier if placer else None,
        filler.identifier if filler else None,
        patient,
        visit,
        attributes,
        procedures,
        policies,
        entry.where,
        by_appointment=scheduling and keys.of_appointment,
    )


def _by_procedure(reading: Reading, said: Sequence[_Said]) -> Iterable[Sequence[_Said]]:
    """Entries with one Study Instance UID are one procedure, else those with one accession number and RP ID."""
    if len(said) == 1:
        return [said]
    groups: dict[object, list[_Said]] = {}
    for one in said:
        keys = one.keys
        key: object = keys.study_instance_uid
        if not key:
            accession = keys.accession.identifier if keys.accession else None
            code = keys.requested_procedure_id or _procedure_codes(reading, one.entry)
            key = (accession, code)
        groups.setdefault(key, []).append(one)
    for group in groups.values():
        _agree(reading, group, "AccessionNumber", lambda keys: keys.accession and keys.accession.identifier)
        _agree(reading, group, "RequestedProcedureID", lambda keys: keys.requested_procedure_id)
    return groups.values()


def _agree(reading: Reading, group: Sequence[_Said], keyword: str, key: Callable[[_Keys], object]) -> None:
    """All entries of one procedure have the same accession number and RP ID (RAD TF-2 4.4.4.1.2)."""
    first: object = None
    for one in group:
        value = key(one.keys)
        if not value:
            continue
        first = first or value
        if value != first:
            reading.refuse(
                RefusalKind.DUPLICATE_KEY, reading.place(keyword, one.entry),
                f"entries with one Study Instance UID disagree in their {keyword}",
                "one requested procedure has one Study Instance UID, accession number and requested procedure ID",
            )  # fmt: skip


def _procedure(
    reading: Reading, said: Sequence[_Said], control: OrderControl, keys_only: bool, subject: str
) -> ProcedureInput:
    reading.subject = subject
    entry = _joined([one.entry for one in said])
    keys = _joined_keys(said)
    accession = keys.accession
    steps: dict[object, list[_Said]] = {}
    for number, one in enumerate(said):
        steps.setdefault(one.keys.sps_id or number, []).append(one)
    attributes: Attributes = {}
    defaults: Attributes = {}
    if keys_only:
        inputs = [StepInput(str(sps_id), {}) for sps_id in steps if isinstance(sps_id, str)]
        defaults = _code_named(reading, entry)
    else:
        codes = _procedure_codes(reading, entry)
        reading.procedure_codes = frozenset([code for code, _ in codes])
        found = _catalogued(reading, codes)
        attributes = reading.attributes(Level.PROCEDURE, entry, found.attributes if found else None, found)
        defaults = _defaults_of(reading, attributes)
        if found is not None and _CODES in defaults:  # said, if without its scheme: another code is another procedure
            attributes[_CODES] = defaults.pop(_CODES)
        if accession is not None:
            put_issuer(attributes, "IssuerOfAccessionNumberSequence", accession.assigned)
        inputs = _steps(reading, list(steps.values()), found, control)
    if reading.trace is not None:
        _trace_keys(reading, entry, keys)
    return ProcedureInput(
        keys.study_instance_uid,
        keys.requested_procedure_id,
        accession.identifier if accession else None,
        attributes,
        tuple(inputs),
        entry.procedure_where,
        defaults,
    )


def _defaults_of(reading: Reading, attributes: Attributes) -> Attributes:
    """Take out what the last level got from the catalogue or a default: it must not replace what is held."""
    return {tag: attributes.pop(tag) for tag in reading.filled if tag in attributes}


def _steps(
    reading: Reading, groups: Sequence[Sequence[_Said]], found: CatalogueProcedure | None, control: OrderControl
) -> list[StepInput]:
    subject = reading.subject
    inputs: list[StepInput] = []
    for index, group in enumerate(groups):
        entry = _joined([one.entry for one in group])
        sps_id = group[0].keys.sps_id
        planned: tuple[CatalogueStep | None, ...] = (None,)
        stated = Stated()
        settled: Attributes = {}
        if found is not None:
            stated, settled = _stated(reading, entry)
            fitting = found.fitting(stated)
            if not sps_id and len(groups) == 1 and fitting:
                planned = fitting  # nobody numbered the steps, so the catalogue says how many there are
            elif len(fitting) == 1:
                planned = fitting
            elif len(groups) == len(found.steps) and found.steps[index] in fitting:
                planned = (found.steps[index],)
        for step in planned:
            reading.subject = f"{subject}, step {len(inputs) + 1}"
            fill = step.for_stations(stated.stations) if step else None
            attributes = reading.attributes(Level.STEP, entry, fill, found, settled)
            if reading.typed_identifiers:  # FHIR's elements for both are optional, each by itself
                _drop_end_before_start(reading, entry, attributes)
            minutes = _minutes(reading, entry)
            if minutes:
                _end(reading, attributes, minutes, "duration")
            elif step is not None:
                _end(reading, attributes, step.duration_min or 0, "missing: catalogue")
            defaults = _defaults_of(reading, attributes)
            if control is OrderControl.SC and not sps_id and not _is_scheduled(attributes):
                continue  # the status of the order as a whole, not of a step of its own
            inputs.append(StepInput(sps_id, attributes, defaults))
    reading.subject = subject
    return inputs


def _stated(reading: Reading, entry: Entry) -> tuple[Stated, Attributes]:
    """What an order states of a step on its own account, to choose the catalogue's steps by.

    With it come the elements that the step itself will have all the same, whatever the catalogue gives; none
    where making them told something, which has to be told of the step.
    """
    kept = reading.trace, list(reading.refusals), list(reading.notes)
    reading.trace = None
    reading.filled = set()
    said: Attributes = {}
    settled: Attributes = {}
    for line in reading.lines_of(entry)[Level.STEP]:
        rule = line.rule
        if rule.keyword in _STATING:
            made = reading.element(rule, entry, None, None)
            if made is not None:
                said[rule.tag] = made
                if len(rule.alternatives) == 1 and rule.tag not in reading.filled:
                    settled[rule.tag] = made
    if kept != (None, reading.refusals, reading.notes):
        settled = {}
    reading.trace, reading.refusals, reading.notes = kept
    codes = (
        text(item, "CodeValue") or text(item, "LongCodeValue") for item in values(said, "ScheduledProtocolCodeSequence")
    )
    stations = frozenset(values(said, "ScheduledStationAETitle"))
    return Stated(text(said, "Modality"), frozenset(filter(None, codes)), stations), settled


def _drop_end_before_start(reading: Reading, entry: Entry, attributes: Attributes) -> None:
    """Leave out an end that is before the start, with a note; then it is reckoned as if nobody had said it."""
    names = [f"ScheduledProcedureStep{which}{what}" for which in ("Start", "End") for what in ("Date", "Time")]
    day, at, last_day, until = (text(attributes, name) for name in names)
    if day and last_day and (last_day, until or at) < (day, at):
        for name in names[2:]:
            attributes.pop(TAG[name], None)
        reading.notes.append(f"{entry.procedure_where}: the end is before the start; left out")


def _end(reading: Reading, attributes: Attributes, minutes: int, how: str) -> None:
    """The end of a step from its start and how long it takes, where the rules for the end ask the catalogue."""
    if not minutes or not reading.ends or not _is_scheduled(attributes):
        return
    day = text(attributes, "ScheduledProcedureStepStartDate")
    at = text(attributes, "ScheduledProcedureStepStartTime")
    for rule, value in zip(reading.ends, _later(day, at, minutes), strict=True):
        if value and rule.tag not in attributes:
            attributes[rule.tag] = {"vr": rule.vr, "Value": [value]}
            reading.traced(rule.target, rule.origin, "", "", how, value)


def _minutes(reading: Reading, entry: Entry) -> int:
    """How long a step takes, as the message says; 0 where it does not, or in a unit that nobody knows.

    The unit stands beside the number: in the next component (CQ), or in the next field (AIS-8, SCH-10).
    """
    for path in reading.identity["ScheduledProcedureStepDuration"].paths:
        for sourced in entry.read(path) if entry.says(path) else ():
            number, unit = part(sourced.repetition, 1), part(sourced.repetition, 2)
            if not unit and path.field:
                beside = entry.beside(sourced.origin, Path(path.segment, path.field + 1))
                unit = part(beside[0].repetition, 1) if beside else ""
            unit = "" if unit[:1].isdigit() else unit  # TQ1-7, beside TQ1-6, is the start
            if number.isascii() and number.isdigit() and len(number) <= _DURATION_DIGITS_MAX:
                factor = _UNIT_MINUTES.get(unit.casefold())
                if factor is not None:
                    return round(int(number) * factor)
                reading.notes.append(f"{sourced.where}: nobody knows the unit of this duration; it is not used")
    return 0


_DURATION_DIGITS_MAX = 5
_UNIT_MINUTES: abc.Mapping[str, float] = {
    **dict.fromkeys(("", "m", "min", "mins", "minute", "minutes"), 1.0),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1 / 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 60.0),
}


def moved(procedure: ProcedureInput) -> ProcedureInput:
    """A procedure that somebody else ordered: only time and place are news, all else fills what is lacking."""
    steps = [
        replace(
            step,
            attributes={tag: said for tag, said in step.attributes.items() if tag in _TIME_AND_PLACE},
            defaults=step.defaults | {tag: said for tag, said in step.attributes.items() if _fills(tag, said)},
        )
        for step in procedure.steps
    ]
    attributes = {tag: said for tag, said in procedure.attributes.items() if tag in _TIME_AND_PLACE}
    defaults = procedure.defaults | {tag: said for tag, said in procedure.attributes.items() if _fills(tag, said)}
    return replace(procedure, attributes=attributes, defaults=defaults, steps=tuple(steps))


def _fills(tag: str, said: Element) -> bool:
    return tag not in _TIME_AND_PLACE and bool(said.get("Value"))


_TIME_AND_PLACE = frozenset(
    TAG[keyword]
    for keyword in (
        "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime", "ScheduledProcedureStepEndDate",
        "ScheduledProcedureStepEndTime", "TimezoneOffsetFromUTC", "ScheduledStationAETitle", "ScheduledStationName",
        "ScheduledProcedureStepLocation", "ScheduledPerformingPhysicianName",
    )
)  # fmt: skip


def _catalogued(reading: Reading, codes: Sequence[tuple[str, str]]) -> CatalogueProcedure | None:
    for code, scheme in codes:
        found = reading.catalogue.find(code, scheme)
        if found is not None:
            return found
    return None


def _procedure_codes(reading: Reading, entry: Entry) -> tuple[tuple[str, str], ...]:
    """The (code, scheme) pairs that an entry orders by, in the order of the rule set's paths."""
    codes: list[tuple[str, str]] = []
    source = reading.identity["ProcedureCode"]
    for path in source.paths:
        for repetition in reading.key_repetitions(source, entry, path) if entry.says(path) else ():
            code = part(repetition, 1)
            if code:
                scheme = part(repetition, 3)
                try:
                    codes.append((code, scheme_designator(scheme, reading.setting) if scheme else ""))
                except Unconvertible:
                    codes.append((code, ""))
    return tuple(codes)


def _code_named(reading: Reading, entry: Entry) -> Attributes:
    """The code of a procedure that is only named, by which it is told from others of its order. Never a refusal."""
    refusals = list(reading.refusals)
    codes = _procedure_codes(reading, entry)
    reading.refusals = refusals
    return {_CODES: {"vr": "SQ", "Value": [code_item(*codes[0])]}} if codes else {}


def _keys(reading: Reading, entry: Entry) -> _Keys:
    placer = reading.identifier("PlacerOrderNumberImagingServiceRequest", entry, ei)
    filler = reading.identifier("FillerOrderNumberImagingServiceRequest", entry, ei)
    accession = reading.identifier("AccessionNumber", entry, ei)
    study_instance_uid = reading.plain_key("StudyInstanceUID", entry)
    of_appointment = not (placer or filler or accession or study_instance_uid)
    if of_appointment:
        filler = reading.identifier("FillerAppointmentID", entry, ei)
        placer = reading.identifier("PlacerAppointmentID", entry, ei) if filler is None else None
    return _Keys(
        placer,
        filler,
        accession,
        study_instance_uid,
        reading.plain_key("RequestedProcedureID", entry),
        reading.plain_key("ScheduledProcedureStepID", entry),
        of_appointment,
    )


def _policies(
    reading: Reading,
    entry: Entry,
    placer: Key | None,
    filler: Key | None,
    procedures: Sequence[ProcedureInput],
    keys_only: bool,
) -> abc.Mapping[str, Policy]:
    """The missing policies of the rule set, with coordinates for those that refuse."""
    if not reading.policies_by_event:
        return reading.policies
    policies = dict(reading.policies)
    for keyword, policy in reading.policies.items():
        if policy.action == "refuse":
            policies[keyword] = Policy("refuse", where=reading.place(keyword, entry))
        source = {
            "PlacerOrderNumberImagingServiceRequest": placer,
            "FillerOrderNumberImagingServiceRequest": filler,
        }.get(policy.source)
        if keys_only or source is None or keyword not in _DERIVED_INTO_SH:
            continue
        held = [p.accession if keyword == "AccessionNumber" else p.requested_procedure_id for p in procedures]
        if not all(held) and len(source.identifier.value) > LENGTH_MAX["SH"]:
            reading.refuse(
                RefusalKind.TOO_LONG, source.where,
                f"{keyword} is derived from this number and may have 16 characters",
                f"send {keyword}, or let the mapping generate it",
            )  # fmt: skip
    return policies


def _trace_keys(reading: Reading, entry: Entry, keys: _Keys) -> None:
    """Trace lines for the keys of a procedure, and for the policy of those that are lacking."""
    said = {
        "AccessionNumber": keys.accession.identifier.value if keys.accession else "",
        "StudyInstanceUID": keys.study_instance_uid,
        "RequestedProcedureID": keys.requested_procedure_id,
    }
    for keyword, value in said.items():
        source = reading.identity[keyword]
        if value:
            reading.traced_key(keyword, entry, value)
        else:
            policy = reading.policies.get(keyword)
            named = f"{policy.action} {policy.source}".strip() if policy else "omit"
            reading.traced(keyword, source.origin, "", "", f"missing: {named}", "")


def _joined(entries: Sequence[Entry]) -> Entry:
    return entries[0] if len(entries) == 1 else entries[0].joined(entries[1:])


def _joined_keys(said: Sequence[_Said]) -> _Keys:
    """Of each key the first that any of them says."""
    if len(said) == 1:
        return said[0].keys
    columns = zip(*(one.keys for one in said), strict=True)
    return _Keys(*(next(filter(None, column), column[0]) for column in columns))


def _is_scheduled(attributes: Attributes) -> bool:
    return bool(
        text(attributes, "ScheduledProcedureStepStartDate") and text(attributes, "ScheduledProcedureStepStartTime")
    )


def _later(day: str, at: str, minutes: int) -> tuple[str, str]:
    """The day (DA) and time (TM) so many minutes later, by the wall clock, without a zone (D13); '' for both after the
    last day that there is."""
    days, minute = divmod(int(at[:2]) * 60 + int(at[2:4]) + minutes, _MINUTES_A_DAY)
    day = other_day(day, days, "") if days else day
    return day, f"{minute // 60:02}{minute % 60:02}{at[4:6]}" if day else ""


_MINUTES_A_DAY = 1440
