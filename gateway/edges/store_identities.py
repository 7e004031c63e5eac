"""Who is who, in rows: patients with their identifiers, their visits, and the log of what happened to identities.

A person has one row that lives, and one for each record that was merged into it. A merged row keeps what was said of
that record under its own identifiers; those are retired identifiers of the living row, which remember whose they were.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic_core import from_json, to_json

from gateway.domain.attributes import Attributes, text, values
from gateway.domain.facts import stamps_of, stamps_text
from gateway.domain.identifiers import Identifier
from gateway.domain.names import fold_name, name_index
from gateway.domain.patient import Belongings, IdentityChange, IdentityKind, Patient, Visit
from gateway.edges import statements
from gateway.edges.database import Connection, Queries, Row, StoreError
from gateway.edges.store_outbox import hand_over_lane, share_lane
from gateway.edges.stored_values import bare, json_text, utc_text

_NEVER = ""  # `undone_at` of what holds


class IdentityReader:
    """The part of `StoreReader` about patients and visits."""

    _connection: Queries

    # -- patients

    def patients(self, identifiers: Sequence[Identifier]) -> Sequence[Patient]:
        """The distinct patients who bear any of these identifiers, merges followed to the survivor."""
        found: dict[int, Patient] = {}
        for identifier in identifiers:
            row = self._connection.row(
                statements.PATIENT_BY_IDENTIFIER, value=identifier.value, issuer=identifier.issuer
            )
            while row is not None and row[1] is not None:
                row = self._connection.row(statements.PATIENT, id=row[1])
            if row is not None and row[0] not in found:
                found[row[0]] = self._patient(row)
        return list(found.values())

    def patient(self, patient_id: int) -> Patient | None:
        """A patient by number, merges followed."""
        row = self._connection.row(statements.PATIENT, id=patient_id)
        while row is not None and row[1] is not None:
            row = self._connection.row(statements.PATIENT, id=row[1])
        return self._patient(row) if row else None

    def patients_of_value(self, value: str) -> Sequence[Patient]:
        """The patients with an identifier of this value, whoever issued it and whether it is retired or not."""
        return self._distinct(self._connection.rows(statements.PATIENT_IDS_OF_VALUE, value=bare(value)))

    def patients_of_name(self, beginning: str, limit: int) -> Sequence[Patient]:
        """The first patients one of whose name groups begins like this, without case and accents."""
        folded = fold_name(beginning)
        last = folded + "\U0010ffff"  # the last code point
        return self._distinct(
            self._connection.rows(statements.PATIENT_IDS_OF_NAME, name_from=folded, name_to=last, limit=limit)
        )

    def _distinct(self, rows: Iterable[Row]) -> Sequence[Patient]:
        found = (self.patient(patient_id) for (patient_id,) in rows)
        return list({each.id: each for each in found if each is not None}.values())

    def merged_into(self, patient_id: int) -> Sequence[Patient]:
        """The records that were merged into this patient, by whatever way, with what was said of each itself."""
        rows = self._connection.rows(statements.PATIENTS_MERGED_INTO, patient_id=patient_id)
        return [self._patient(row) for row in rows]

    def retired_from(self, identifier: Identifier) -> Patient | None:
        """The record that bore this retired identifier, as it is itself; None where nobody knows.

        It is the patient's own record where the patient got another identifier instead.
        """
        row = self._connection.row(statements.PATIENT_RETIRED_FROM, value=identifier.value, issuer=identifier.issuer)
        return self._patient(row) if row else None

    def _patient(self, row: Row) -> Patient:
        current: list[Identifier] = []
        past: list[Identifier] = []
        for value, issuer, retired, _ in self._connection.rows(statements.IDENTIFIERS_OF_PATIENT, patient_id=row[0]):
            (past if retired else current).append(Identifier(value, issuer))
        return Patient(row[0], tuple(current), from_json(row[2]), tuple(past), stamps_of(row[3]))

    def belongings(self, patient_id: int) -> Belongings:
        """The orders, visits and performed steps of this patient."""
        return Belongings(
            *(
                tuple(number for (number,) in self._connection.rows(statement, patient_id=patient_id))
                for statement in (
                    statements.ORDERS_OF_PATIENT,
                    statements.VISITS_OF_PATIENT,
                    statements.PERFORMED_OF_PATIENT,
                )
            )
        )

    # -- visits

    def visit(self, patient_id: int, number: Identifier | None) -> Visit | None:
        """The patient's visit of that number, or the unnumbered one; of several after a merge the last begun."""
        value, issuer = (number.value, number.issuer) if number else ("", "")
        row = self._connection.row(statements.VISIT, patient_id=patient_id, number=value, issuer=issuer)
        return Visit(row[0], patient_id, number, from_json(row[1]), stamps_of(row[2])) if row else None

    def belongings_of_visit(self, visit_id: int) -> Belongings:
        """A visit with its orders, and what was performed of their steps."""
        orders = tuple(number for (number,) in self._connection.rows(statements.ORDERS_OF_VISIT, visit_id=visit_id))
        performed = (uid for each in orders for uid in self.performed_of_order(each))
        return Belongings(orders, (visit_id,), tuple(dict.fromkeys(performed)))

    def performed_of_order(self, order_id: int) -> Sequence[str]:
        """What was performed of an order's steps, by SOP Instance UID."""
        return [uid for (uid,) in self._connection.rows(statements.PERFORMED_OF_ORDER, order_id=order_id)]

    def visit_by_id(self, visit_id: int) -> Visit | None:
        """A visit by the store's number."""
        row = self._connection.row(statements.VISIT_BY_ID, id=visit_id)
        if row is None:
            return None
        patient_id, number, issuer, attributes, stamps = row
        known = Identifier(number, issuer) if number else None
        return Visit(visit_id, patient_id, known, from_json(attributes), stamps_of(stamps))

    # -- the log of identities

    def identity_change(self, log_id: int) -> IdentityChange | None:
        """A line of the log by number."""
        row = self._connection.row(statements.IDENTITY_CHANGE, id=log_id)
        return _identity_change(row) if row else None

    def identity_changes(
        self, patient_id: int | None = None, since: datetime | None = None, limit: int = 1000
    ) -> Sequence[IdentityChange]:
        """Lines of the log, newest first: of this patient's record, as survivor or as prior, or of everybody."""
        bounds = {"since": utc_text(since) if since else "", "limit": limit}
        found = (
            self._connection.rows(statements.IDENTITY_CHANGES, **bounds)
            if patient_id is None
            else self._connection.rows(statements.IDENTITY_CHANGES_OF_PATIENT, patient_id=patient_id, **bounds)
        )
        return [_identity_change(row) for row in found]

    def linked_patients(self, patient_id: int) -> frozenset[int]:
        """The patients whose records are said to be of the same person (A24) and were not merged."""
        rows = self._connection.rows(statements.LINKED_PATIENTS, patient_id=patient_id)
        linked = (self.patient(each) for row in rows for each in row if each is not None)
        return frozenset(each.id for each in linked if each is not None and each.id is not None) - {patient_id}


class IdentityWriter(IdentityReader):
    """The part of `StoreUnit` about patients and visits."""

    _write: Connection

    # -- patients

    def save_patient(self, patient: Patient, at: datetime) -> int:
        """Insert or update; afterwards the patient bears exactly these identifiers, the first one primary."""
        attributes, stamps = json_text(patient.attributes), stamps_text(patient.stamps)
        patient_id = patient.id
        if patient_id is None:
            patient_id = self._write.insert(
                statements.PATIENT_INSERT,
                patient_id=bare(text(patient.attributes, "PatientID")), merged_into=None, attributes=attributes,
                stamps=stamps, created_at=utc_text(at), updated_at=utc_text(at),
            )  # fmt: skip
            self._add_identifiers(patient_id, patient.identifiers, dict.fromkeys(patient.retired, patient_id))
            self._add_names(patient_id, _name_index(patient.attributes))
            return patient_id
        held = self._write.row(statements.PATIENT, id=patient_id)
        if held is None or held[1] is not None:
            raise StoreError("there is no such patient, or it was merged into another")
        if held[2] != attributes:
            self._update(patient_id, patient.attributes, attributes, stamps, at)
            names = _name_index(patient.attributes)
            if {name for (name,) in self._write.rows(statements.NAMES_OF_PATIENT, patient_id=patient_id)} != names:
                self._write.run(statements.NAMES_DELETE, patient_id=patient_id)
                self._add_names(patient_id, names)
            self._write.run(statements.STEPS_REVISE_OF_PATIENT, key_patient_id=patient_id)
        elif held[3] != stamps:  # the same was said again: nobody sees a difference
            self._write.run_unseen(statements.PATIENT_SET_STAMPS, key_id=patient_id, stamps=stamps)
        self._set_identifiers(patient_id, patient.identifiers, patient.retired)
        return patient_id

    def set_patient_stamps(self, patient: Patient) -> None:
        """What is held was said again: nobody sees a difference."""
        if not self._write.run_unseen(
            statements.PATIENT_SET_STAMPS, key_id=patient.id, stamps=stamps_text(patient.stamps)
        ):
            raise StoreError("there is no such patient")

    def save_merged(self, patient: Patient, at: datetime) -> None:
        """What is now known of a record that was merged into another; nobody sees it but through the survivor."""
        held = self._write.row(statements.PATIENT, id=patient.id)
        if patient.id is None or held is None or held[1] is None:
            raise StoreError("there is no such merged record")
        self._update(patient.id, patient.attributes, json_text(patient.attributes), stamps_text(patient.stamps), at)

    def _update(self, patient_id: int, held: Attributes, attributes: str, stamps: str, at: datetime) -> None:
        self._write.run(
            statements.PATIENT_UPDATE,
            key_id=patient_id, patient_id=bare(text(held, "PatientID")), attributes=attributes, stamps=stamps,
            updated_at=utc_text(at),
        )  # fmt: skip

    def merge_patient(self, prior_id: int, surviving_id: int, at: datetime) -> Belongings:
        """Orders, visits, performed steps and identifiers of the prior one now belong to the surviving one.

        What moved. Either may have been merged before: then its survivor is meant. The same one twice is no change.
        """
        prior, surviving = self.patient(prior_id), self.patient(surviving_id)
        if prior is None or surviving is None or prior.id is None or surviving.id is None:
            raise StoreError("there is no such patient")
        if prior.id == surviving.id:
            return Belongings()
        past = {**self._retired(surviving.id), **dict.fromkeys(prior.identifiers, prior.id)}
        past |= {
            each: prior.id if source in (None, prior.id) else source
            for each, source in self._retired(prior.id).items()
        }  # fmt: skip
        self._write.run(statements.IDENTIFIERS_DELETE, patient_id=prior.id)
        self._write.run(statements.IDENTIFIERS_DELETE, patient_id=surviving.id)
        self._add_identifiers(surviving.id, surviving.identifiers, past)
        self._write.run(statements.NAMES_DELETE, patient_id=prior.id)
        moved = self.belongings(prior.id)
        self._hand_over(moved, prior.id, surviving.id)
        hand_over_lane(self._write, str(prior.id), str(surviving.id))
        self._write.run(statements.PATIENTS_MERGE_FURTHER, key_merged_into=prior.id, merged_into=surviving.id)
        self._write.run(statements.PATIENT_MERGE, key_id=prior.id, merged_into=surviving.id, updated_at=utc_text(at))
        return moved

    def part_patient(
        self, prior_id: int, surviving_id: int, retired: Sequence[Identifier], members: Iterable[int], at: datetime
    ) -> None:
        """A merged record lives again, with the identifiers it had and the records that were merged into it before.

        `retired` are those it had retired itself. What belongs to it is for the caller to hand over.
        """
        with_it = frozenset(members)
        stays: dict[Identifier, int | None] = {}
        current: list[Identifier] = []
        past: dict[Identifier, int | None] = {}
        for identifier, source in self._retired(surviving_id).items():
            if source == prior_id and identifier not in retired:
                current.append(identifier)
            elif source == prior_id or source in with_it:
                past[identifier] = source
            else:
                stays[identifier] = source
        survivor, prior = self.patient(surviving_id), self._write.row(statements.PATIENT, id=prior_id)
        if survivor is None or prior is None:
            raise StoreError("there is no such patient")
        self._write.run(statements.IDENTIFIERS_DELETE, patient_id=surviving_id)
        self._add_identifiers(surviving_id, survivor.identifiers, stays)
        self._add_identifiers(prior_id, current, past)
        self._add_names(prior_id, _name_index(from_json(prior[2])))
        for each in (prior_id, *with_it):
            self._write.run(
                statements.PATIENT_MERGE,
                key_id=each, merged_into=None if each == prior_id else prior_id, updated_at=utc_text(at),
            )  # fmt: skip

    def hand_over(self, what: Belongings, from_id: int, to_id: int) -> Belongings:
        """These now belong to another patient, as far as they are the first one's; what did."""
        share_lane(self._write, str(from_id), str(to_id))
        return self._hand_over(what, from_id, to_id)

    def _hand_over(self, what: Belongings, from_id: int, to_id: int) -> Belongings:
        bound = {"key_patient_id": from_id, "patient_id": to_id}
        visits = [each for each in what.visits if self._write.run(statements.VISIT_HAND_OVER, key_id=each, **bound)]
        orders = [each for each in what.orders if self._write.run(statements.ORDER_HAND_OVER, key_id=each, **bound)]
        for each in orders:
            self._write.run(statements.STEPS_HAND_OVER, key_order_id=each, patient_id=to_id)
        performed = [
            each
            for each in what.performed_steps
            if self._write.run(statements.PERFORMED_STEP_HAND_OVER, key_uid=each, **bound)
        ]
        return Belongings(tuple(orders), tuple(visits), tuple(performed))

    def retire(self, identifiers: Iterable[Identifier], merged_id: int, surviving_id: int) -> None:
        """More identifiers of a merged record: they find the survivor, and are said to nobody."""
        survivor = self.patient(surviving_id)
        if survivor is None:
            raise StoreError("there is no such patient")
        past = {**self._retired(surviving_id), **dict.fromkeys(identifiers, merged_id)}
        self._write.run(statements.IDENTIFIERS_DELETE, patient_id=surviving_id)
        self._add_identifiers(surviving_id, survivor.identifiers, past)

    def _retired(self, patient_id: int) -> dict[Identifier, int | None]:
        """The retired identifiers of a patient, and whose each was."""
        return {
            Identifier(value, issuer): source
            for value, issuer, retired, source in self._write.rows(
                statements.IDENTIFIERS_OF_PATIENT, patient_id=patient_id
            )
            if retired
        }

    def _set_identifiers(
        self, patient_id: int, identifiers: Sequence[Identifier], retired: Sequence[Identifier]
    ) -> None:
        rows = self._write.rows(statements.IDENTIFIERS_OF_PATIENT, patient_id=patient_id)
        held = [Identifier(value, issuer) for value, issuer, past, _ in rows if not past]
        past = {Identifier(value, issuer): source for value, issuer, past, source in rows if past}
        if (held, list(past)) != (list(dict.fromkeys(identifiers)), list(dict.fromkeys(retired))):
            self._write.run(statements.IDENTIFIERS_DELETE, patient_id=patient_id)
            self._add_identifiers(patient_id, identifiers, {each: past.get(each, patient_id) for each in retired})

    def _add_identifiers(
        self, patient_id: int, identifiers: Sequence[Identifier], past: Mapping[Identifier, int | None]
    ) -> None:
        current = dict.fromkeys(identifiers)
        rows: list[tuple[Identifier, int, int | None]] = [(each, 0, None) for each in current]
        rows += [(each, 1, source) for each, source in past.items() if each not in current]
        self._write.run_many(
            statements.IDENTIFIER_INSERT,
            [
                {
                    "value": each.value, "issuer": each.issuer, "patient_id": patient_id, "position": position,
                    "retired": retired, "merged_from": source,
                }
                for position, (each, retired, source) in enumerate(rows)
            ],
        )  # fmt: skip

    def _add_names(self, patient_id: int, names: set[str]) -> None:
        self._write.run_many(statements.NAME_INSERT, [{"patient_id": patient_id, "folded": name} for name in names])

    # -- visits

    def save_visit(self, visit: Visit, at: datetime) -> int:
        """Insert or update; every item of an order of this visit gets a new revision where something changed."""
        number, issuer = (visit.number.value, visit.number.issuer) if visit.number else ("", "")
        attributes, stamps = json_text(visit.attributes), stamps_text(visit.stamps)
        if visit.id is None:
            return self._write.insert(
                statements.VISIT_INSERT,
                patient_id=visit.patient_id, number=number, issuer=issuer, attributes=attributes,
                stamps=stamps, created_at=utc_text(at), updated_at=utc_text(at),
            )  # fmt: skip
        held = self._write.row(statements.VISIT_BY_ID, id=visit.id)
        if held is None:
            raise StoreError("there is no such visit")
        if held[:4] != (visit.patient_id, number, issuer, attributes):
            self._write.run(
                statements.VISIT_UPDATE,
                key_id=visit.id, patient_id=visit.patient_id, number=number, issuer=issuer, attributes=attributes,
                stamps=stamps, updated_at=utc_text(at),
            )  # fmt: skip
            self._write.run(statements.STEPS_REVISE_OF_VISIT, key_visit_id=visit.id)
        elif held[4] != stamps:
            self._write.run_unseen(statements.VISIT_SET_STAMPS, key_id=visit.id, stamps=stamps)
        return visit.id

    # -- the log of identities

    def log_identity(self, change: IdentityChange) -> int:
        """A new line of the log; its number."""
        return self._write.insert(
            statements.IDENTITY_CHANGE_INSERT,
            at=utc_text(change.at), kind=str(change.kind), cause=change.cause, patient_id=change.patient_id,
            other_id=change.other_id, details=to_json(change.details).decode(), undone_at=_NEVER,
        )  # fmt: skip

    def set_identity_change_undone(self, log_id: int, at: datetime) -> None:
        """What this line says holds no longer."""
        if not self._write.run(statements.IDENTITY_CHANGE_UNDO, key_id=log_id, undone_at=utc_text(at)):
            raise StoreError("the log of identities has no such line")


def _identity_change(row: Row) -> IdentityChange:
    number, at, kind, cause, patient_id, other_id, details, undone_at = row
    said: dict[str, Any] = from_json(details)
    undone = datetime.fromisoformat(undone_at) if undone_at else None
    return IdentityChange(
        number, datetime.fromisoformat(at), IdentityKind(kind), cause, patient_id, other_id, said, undone
    )


def _name_index(attributes: Attributes) -> set[str]:
    """What the patient's name is found by (`names.name_index`)."""
    first = next(iter(values(attributes, "PatientName")), None)  # of one value, as the matcher counts them
    return set(name_index(first)) if first else set()
