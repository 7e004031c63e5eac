"""Why is this patient not on my list? What is held, what came and what was asked, told in plain sentences.

Reads and changes nothing. An explanation shows patient data: it is for people with the right to see them, never for
a log. What a query would be answered is decided here exactly as `query` decides it: by the caller's view and the
compiled query.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, tzinfo
from enum import StrEnum

from gateway.domain.attributes import text
from gateway.domain.devices import Devices, WhenMore
from gateway.domain.matching import Narrowing
from gateway.domain.refusal import Refused
from gateway.domain.visibility import View
from gateway.domain.worklist import LISTED, SPSStatus, WorklistItem, missing_for_listing, start_of
from gateway.wire.worklist_dataset import PreparedQuery, prepare_query
from gateway.workflow.ports import HistoryEntry, ItemKey, MessageSearch, Records, StoredMessage, StoredQuery
from gateway.workflow.query import Caller, caller_of
from gateway.workflow.replay import matching_items, status_words

QUERIES_LOOKED_AT = 100
"""Of how many of a device's newest queries the distinct ones are looked for."""

QUERIES_EXPLAINED = 5
"""Distinct queries explained: a device has one or two, and a person tries some more."""

ITEMS_EXPLAINED = 20
"""Items explained: the listed ones of a patient first, then the latest."""

MESSAGES_SHOWN = 5
"""Messages told of, the newest first."""

TROUBLED_LOOKED_AT = 500
"""Messages that changed nothing, in whose text a number is looked for that they are not indexed by."""

_REASONS_CHARACTERS_MAX = 400

# Keys that devices send because they are set up so; what a person types is a person's to change.
_HABITS = ("ScheduledStationAETitle", "Modality", "ScheduledStationName", "ScheduledProcedureStepLocation",
           "ScheduledProcedureStepStatus", "ScheduledPerformingPhysicianName", "InstitutionName")  # fmt: skip


class Severity(StrEnum):
    """What a finding says about the item: it is shown, it is hidden, or something to know beside it."""

    SHOWN = "shown"
    HIDDEN = "hidden"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence, with the numbers of the message and the query it is about (0 for none)."""

    severity: Severity
    sentence: str = field(repr=False)
    message: int = 0
    query: int = 0


@dataclass(frozen=True, slots=True)
class ItemFindings:
    """What concerns one item."""

    item: WorklistItem
    findings: tuple[Finding, ...]

    @property
    def shown(self) -> bool:
        """Whether the device is shown it: by its newest query, or by any that matches, if none is kept."""
        of_queries = (finding for finding in self.findings if finding.query and finding.severity is not Severity.NOTE)
        newest = max((finding.query for finding in self.findings), default=0)
        decisive = [finding for finding in of_queries if finding.query == newest] if newest else self.findings
        return any(finding.severity is Severity.SHOWN for finding in decisive)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a device does or does not see what was asked about. `findings` are about the device and the number."""

    calling_ae_title: str
    called_ae_title: str
    key: ItemKey
    value: str = field(repr=False)
    findings: tuple[Finding, ...]
    items: tuple[ItemFindings, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """Who is asked about, and the number: of an order, a patient, or a step. `called_ae_title` '' means: as last."""

    calling_ae_title: str
    key: ItemKey
    value: str = field(repr=False)
    called_ae_title: str = ""


def why(records: Records, devices: Devices, question: Question, zone: tzinfo | None, now: datetime) -> Explanation:
    """Everything that decides whether the device sees it, the first causes first. `now` needs a zone."""
    return _Inquiry(records, devices, question, zone, now).explanation()


class _Inquiry:
    """One question on its way to an explanation."""

    def __init__(
        self, records: Records, devices: Devices, question: Question, zone: tzinfo | None, now: datetime
    ) -> None:
        self._records = records
        self._devices = devices
        self._question = question
        self._zone = zone
        self._now = now
        newest = records.queries(question.calling_ae_title, QUERIES_LOOKED_AT)
        self._queries = [query for query in newest if question.called_ae_title in ("", query.record.called_ae_title)]
        self._called_elsewhere = newest[0] if newest and not self._queries else None
        self._findings: list[Finding] = []

    def explanation(self) -> Explanation:
        question = self._question
        called = self._called()
        caller = self._caller(called, b"") if called is not None else None
        self._about_device(caller, called)
        damaged: list[int] = []
        self._records.left_out = lambda step_id, _reason: damaged.append(step_id)
        items = self._records.items_by(question.key, question.value)
        messages = self._records.find_messages(MessageSearch(question.value), 50)
        if damaged:
            self._tell(
                Severity.HIDDEN,
                f"{len(damaged)} item(s) with it cannot be read from the store and are left out of every answer; "
                "send the order again, or restore a backup. `gateway check` names them.",
            )
        if not items:
            if not damaged:
                self._about_nothing(messages)
        else:
            self._about_later_messages(messages)
            if len(items) > ITEMS_EXPLAINED:
                self._tell(
                    Severity.NOTE, f"{len(items)} items are held with it; {ITEMS_EXPLAINED} of them are explained."
                )
        self._about_asking(called or "")
        return Explanation(
            question.calling_ae_title,
            called or "",
            question.key,
            question.value,
            tuple(self._findings),
            tuple(ItemFindings(item, tuple(self._about_item(item, caller))) for item in self._foremost(items)),
        )

    def _foremost(self, items: Sequence[WorklistItem]) -> Sequence[WorklistItem]:
        """The items worth explaining."""
        latest = sorted(items, key=lambda item: start_of(item.step), reverse=True)
        return sorted(latest, key=lambda item: item.status not in LISTED)[:ITEMS_EXPLAINED]

    # -- the device

    def _called(self) -> str | None:
        """The called AE title that is meant; None where only the person who asks can say it."""
        if self._question.called_ae_title:
            return self._question.called_ae_title
        if self._queries:
            return self._queries[0].record.called_ae_title
        if len(self._devices.worklists) > 1:
            names = ", ".join(sorted(self._devices.worklists))
            self._tell(
                Severity.NOTE,
                f"There are several worklists ({names}) and {self._question.calling_ae_title} has not asked for any "
                "yet: name the one it is to call with --called.",
            )
            return None
        return next(iter(self._devices.worklists), "")

    def _caller(self, called: str, negotiation: bytes) -> Caller | None:
        today = self._now.astimezone(self._zone).date()
        return caller_of(self._devices, self._question.calling_ae_title, called, negotiation, self._zone, today)

    def _about_device(self, caller: Caller | None, called: str | None) -> None:
        calling = self._question.calling_ae_title
        registered = calling in self._devices.known
        if self._devices.device(calling) is None:
            self._tell(
                Severity.HIDDEN,
                f"{calling} is not in the device registry, and unknown callers are rejected: it gets no association "
                f"and no answer at all.{_near(calling, self._devices.known)}",
            )
        elif not registered:
            self._tell(
                Severity.NOTE,
                f"{calling} is not in the device registry; unknown callers are accepted, without a profile."
                f"{_near(calling, self._devices.known)}",
            )
        if called is not None and self._devices.worklist(called) is None:
            self._tell(
                Severity.HIDDEN,
                f"It calls {called}, and there is no worklist of that AE title, so its associations are rejected."
                f"{_near(called, self._devices.worklists)}",
            )
        if caller is not None and caller.device.profile.name:
            profile = caller.device.profile
            reason = f" ({profile.reason})" if profile.reason else ""
            self._tell(Severity.NOTE, f"{calling} has the profile {profile.name}{reason}.")

    def _about_asking(self, called: str) -> None:
        """When the device asked last, and how that ended."""
        calling = self._question.calling_ae_title
        if self._called_elsewhere is not None:
            last = self._called_elsewhere
            self._tell(
                Severity.NOTE,
                f"{calling} last asked at {self._moment(last.record.at)} (query {last.id}), and called "
                f"{last.record.called_ae_title}, not {called}.",
                query=last.id,
            )
            return
        if not self._queries:
            self._tell(
                Severity.NOTE,
                f"No query of {calling} is kept: it has never asked for its worklist here, or not for as long as "
                "queries are kept. Check its settings for AE titles, address and port.",
            )
            return
        last = self._queries[0]
        record = last.record
        self._tell(
            Severity.NOTE,
            f"{calling} last asked at {self._moment(record.at)} (query {last.id}) and got {_answers(record.matches)}; "
            f"it ended with {status_words(record.status)}.",
            query=last.id,
        )
        for note in record.notes:
            self._tell(Severity.NOTE, f"About that query: {note}.", query=last.id)

    # -- where nothing is held

    def _about_nothing(self, messages: Sequence[StoredMessage]) -> None:
        key, value = self._question.key, self._question.value
        self._tell(Severity.HIDDEN, f"No item with the {key} {value} is held.")
        if not messages:
            named = re.compile(rb"(?<![\w-])" + re.escape(value.encode()) + rb"(?![\w-])")
            troubled = self._records.troubled_messages(TROUBLED_LOOKED_AT)
            messages = [each for each in troubled if named.search(each.record.raw)]
        for message in messages[:MESSAGES_SHOWN]:
            self._about_message(message)
        if messages:
            return
        newest = self._records.newest_messages()
        if not newest:
            self._tell(Severity.NOTE, "Nothing with it ever arrived, and no listener has received any message yet.")
        for message in newest:
            record = message.record
            self._tell(
                Severity.NOTE,
                f"Nothing with it ever arrived. The newest message of listener {record.listener} came at "
                f"{self._moment(record.received_at)} (message {message.id}, {record.message_type or 'unreadable'}, "
                f"{record.disposition}).",
                message=message.id,
            )

    def _about_message(self, message: StoredMessage) -> None:
        """What became of a message that names what is not held."""
        record = message.record
        came = f"Message {message.id} ({record.message_type or 'unreadable'}) of listener {record.listener}"
        came += f" named it at {self._moment(record.received_at)}"
        reasons = "; ".join(line for line in record.reasons.splitlines() if line)[:_REASONS_CHARACTERS_MAX]
        sentence = {
            "held": f"{came} and waits: {reasons or 'no procedure rule covers it'}. It is run again by itself when "
            "the procedure catalogue has a rule for it.",
            "withdrawn": f"{came}, was held because no procedure rule covered it, and then cancelled by its sender.",
            "superseded": f"{came}, was held because no procedure rule covered it, and was overtaken: {reasons}.",
            "refused": f"{came} and was refused: {reasons}.",
            "unreadable": f"{came} and could not be read: {reasons}.",
            "ignored": f"{came} and was ignored: {reasons}.",
        }.get(record.disposition, f"{came} and was {record.disposition}, but it made no worklist item.")
        severity = Severity.NOTE if record.disposition in ("accepted", "released") else Severity.HIDDEN
        self._tell(severity, sentence, message=message.id)

    def _about_later_messages(self, messages: Sequence[StoredMessage]) -> None:
        """Messages about what is held that changed nothing, newer than the last one that did."""
        accepted = max((each.id for each in messages if each.record.disposition in ("accepted", "released")), default=0)
        for message in messages[:MESSAGES_SHOWN]:
            record = message.record
            if message.id > accepted and record.disposition in ("refused", "unreadable", "held"):
                reasons = "; ".join(record.reasons.splitlines())[:_REASONS_CHARACTERS_MAX]
                self._tell(
                    Severity.NOTE,
                    f"Message {message.id} of {self._moment(record.received_at)} is about it and was "
                    f"{record.disposition}, so what is held may be older than what the sender means: {reasons}.",
                    message=message.id,
                )

    # -- one item

    def _about_item(self, item: WorklistItem, caller: Caller | None) -> Iterator[Finding]:
        history = self._records.step_history(item.step_id)
        since = history[0].at if history else None
        lacking = [*missing_for_listing(item.step), *_lacking(item)]
        if lacking:
            yield Finding(
                Severity.NOTE, f"It lacks {', '.join(lacking)}, without which some devices hide an item they receive."
            )
        if caller is None:
            return
        hidden = list(self._about_view(item, caller.view, history))
        yield from hidden
        distinct = self._distinct_queries()
        for query in distinct:
            yield from self._about_query(item, query, since, bool(hidden))
        if not distinct and not hidden:
            reasons = caller.view.reasons(item, Narrowing())
            if reasons:
                yield Finding(Severity.HIDDEN, _sentence("A query without a date does not show it", reasons))
            else:
                yield Finding(Severity.SHOWN, "It is in the answer to any query of this device that matches it.")

    def _about_view(self, item: WorklistItem, view: View, history: Sequence[HistoryEntry]) -> Iterator[Finding]:
        """What hides the item whatever the device asks."""
        if item.status not in view.statuses:
            held_since = next((entry for entry in reversed(history) if entry.status is item.status), None)
            when = f" since {self._moment(held_since.at)}, by {held_since.cause}" if held_since else ""
            own = " for this device" if item.status in LISTED else ""
            yield Finding(
                Severity.HIDDEN, f"Its status is {item.status}{when}; items of that status are not listed{own}."
            )
        always = replace(view, statuses=frozenset(SPSStatus), days=("", ""))
        for reason in always.reasons(item, Narrowing()):
            yield Finding(Severity.HIDDEN, f"It may not be seen: {reason}.")

    def _distinct_queries(self) -> Sequence[StoredQuery]:
        """The newest of each different thing that the device asked."""
        found: dict[tuple[bytes, str, str, bytes], StoredQuery] = {}
        for query in self._queries:
            record = query.record
            said = (record.identifier, record.transfer_syntax, record.called_ae_title, record.negotiation)
            found.setdefault(said, query)
        return list(found.values())[:QUERIES_EXPLAINED]

    def _about_query(
        self, item: WorklistItem, query: StoredQuery, since: datetime | None, hidden: bool
    ) -> Iterator[Finding]:
        record = query.record
        name = f"Query {query.id} of {self._moment(record.at)}"
        caller = self._caller(record.called_ae_title, record.negotiation)
        if caller is None:
            yield Finding(Severity.NOTE, f"{name} called {record.called_ae_title}, which is no worklist any more.",
                          query=query.id)  # fmt: skip
            return
        try:
            prepared = prepare_query(record.identifier, record.transfer_syntax, caller.device.profile, caller.rules)
        except Refused as refused:
            reasons = tuple(map(str, refused.refusals))
            yield Finding(Severity.HIDDEN, _sentence(f"{name} cannot be used", reasons), query=query.id)
            return
        asked = prepared.query.narrowing()
        excluded = prepared.query.explain(item.attributes, item.status)
        if excluded:
            yield Finding(Severity.HIDDEN, _sentence(f"{name} excludes it", excluded), query=query.id)
            yield from self._about_remedy(item, query, caller)
        # What hides it from every query is said already; the date window is a matter of the query.
        window = View(statuses=frozenset(SPSStatus), days=caller.view.days).reasons(item, asked)
        if window:
            yield Finding(Severity.HIDDEN, _sentence(f"{name} names no date", window), query=query.id)
        if excluded or window:
            return
        if hidden or not caller.view.admits(item, asked):
            yield Finding(Severity.NOTE, f"{name} would match it.", query=query.id)
            return
        cut = self._cut(item, caller, prepared)
        if cut:
            yield Finding(Severity.HIDDEN, f"{name} matches it, but {cut}.", query=query.id)
            return
        then = ""
        if since is not None and record.at < since:
            then = f" It was not yet there when the device asked: it arrived at {self._moment(since)}."
        yield Finding(Severity.SHOWN, f"{name}, asked now, finds it: it is in the answer.{then}", query=query.id)

    def _about_remedy(self, item: WorklistItem, query: StoredQuery, caller: Caller) -> Iterator[Finding]:
        """The one thing that, taken away, lets this query find the item: what the profile forces, or a habit's key."""
        profile, record = caller.device.profile, query.record
        if profile.force:
            unforced = replace(profile, force=())
            prepared = prepare_query(record.identifier, record.transfer_syntax, unforced, caller.rules)
            if prepared.query.matches(item.attributes, item.status):
                yield Finding(
                    Severity.NOTE, f"The device did not ask so: its profile {profile.name} does (`force`).",
                    query=query.id,
                )  # fmt: skip
                return
        for keyword in _HABITS:
            bent = replace(profile, ignore=(*profile.ignore, keyword))
            prepared = prepare_query(record.identifier, record.transfer_syntax, bent, caller.rules)
            if prepared.query.matches(item.attributes, item.status):
                yield Finding(
                    Severity.NOTE,
                    f"If the device always asks so and should see it: correct {keyword} in the order, or give the "
                    f"device a profile with `ignore: [{keyword}]`.",
                    query=query.id,
                )
                return

    def _cut(self, item: WorklistItem, caller: Caller, prepared: PreparedQuery) -> str:
        """Why a matching item is beyond the end of the answer; '' where it is not."""
        profile = caller.device.profile
        if not profile.answers_max:
            return ""
        for position, each in enumerate(matching_items(self._records, caller, prepared), 1):
            if each.step_id == item.step_id:
                if position <= profile.answers_max:
                    return ""
                ends = "with A700" if profile.when_more is WhenMore.FAILURE else "as if it were complete"
                return (
                    f"it is number {position} of the matches, and this device is answered {profile.answers_max} at "
                    f"most (answers_max); the answer then ends {ends}"
                )
        return "it went away meanwhile"

    def _moment(self, at: datetime) -> str:
        return at.astimezone(self._zone).strftime("%Y-%m-%d %H:%M:%S")

    def _tell(self, severity: Severity, sentence: str, message: int = 0, query: int = 0) -> None:
        self._findings.append(Finding(severity, sentence, message, query))


def _lacking(item: WorklistItem) -> list[str]:
    needed = ("StudyInstanceUID", "RequestedProcedureID", "PatientName", "PatientID")
    return [keyword for keyword in needed if not text(item.attributes, keyword)]


def _answers(count: int) -> str:
    return "no answer" if count == 0 else "1 answer" if count == 1 else f"{count} answers"


def _sentence(start: str, reasons: Sequence[str]) -> str:
    return f"{start}: {'; '.join(reasons)}."


def _near(name: str, known: Iterable[str]) -> str:
    """A name that may have been meant."""
    folded = {each.strip().casefold(): each for each in sorted(known)}
    close = difflib.get_close_matches(name.strip().casefold(), folded, 1, 0.6)
    return f" Did you mean {folded[close[0]]}?" if close else ""
