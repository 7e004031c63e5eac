"""What an N-CREATE or N-SET of a performed step comes to: judged against table F.7.2-1, applied to what is held.

A modality is believed as far as it can be (design D14): by default only what makes a performed step usable at all is
demanded, and everything else that the table asks for is noted. `Rules` holds one calling AE to more.

`judged` looks at a request alone, which takes long for thousands of series and needs nothing that is held;
`create` and `amend` then say what it comes to, and are quick.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gateway.domain.attributes import Attributes, Element
from gateway.domain.performed import STATUS, TRANSITIONS, MPPSState, Operation, PerformedStep, requested_status
from gateway.domain.performed_faults import Fault, Lack, faults, lacking_at_the_end, lacking_in, place, same, valued
from gateway.domain.performed_table import BY_TAG
from gateway.domain.refusal import Refusal, RefusalKind

CHARACTER_SET = "00080005"


@dataclass(frozen=True, slots=True)
class Rules:
    """How closely a calling AE is held to table F.7.2-1. All off is what deployed modalities need.

    `whole_table`: everything of type 1 and 2 must be there, also inside items, and fit its value representation; else
    only type 1 attributes of the step itself and the Study Instance UID of each scheduled step it names.
    `no_changes`: an N-SET that changes what only N-CREATE may say, or sets what was never created, is refused; else
    the former is answered with a warning and the latter accepted.
    `complete_final`: COMPLETED and DISCONTINUED need the end and the list of series; else their absence is noted.
    `own_steps_only`: an N-SET of another AE title than that of the N-CREATE is refused; else it is noted.
    """

    whole_table: bool = False
    no_changes: bool = False
    complete_final: bool = False
    own_steps_only: bool = False


LENIENT = Rules()
STRICT = Rules(whole_table=True, no_changes=True, complete_final=True, own_steps_only=True)


@dataclass(frozen=True, slots=True)
class Said:
    """The attributes of a request, with what table F.7.2-1 finds wrong with them."""

    attributes: Attributes = field(repr=False)
    lacks: tuple[Lack, ...] = ()
    faults: tuple[Fault, ...] = ()


def judged(operation: Operation, attributes: Attributes) -> Said:
    """What a request says, looked at by itself. Pure."""
    return Said(attributes, lacking_in(operation, attributes), faults(attributes))


@dataclass(frozen=True, slots=True)
class Change:
    """What a request comes to: the step afterwards, or every reason why not (`performed` is then None).

    `kept` are the tags that the request wanted changed and that stay as created (a warning, 0107), `left_out` those
    whose value cannot be what it should be (a warning, 0116). `notes` say what was accepted although the table asks
    for more.
    """

    performed: PerformedStep | None
    refusals: tuple[Refusal, ...] = ()
    kept: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def create(
    held: PerformedStep | None, sop_instance_uid: str, said: Said, calling_ae_title: str, rules: Rules
) -> Change:
    """N-CREATE (PS3.4 F.7.2.1): the new step, not yet linked to anything. Pure."""
    next_state = TRANSITIONS[Operation.CREATE, held.state if held else None, requested_status(said.attributes)]
    if next_state is RefusalKind.DUPLICATE_INSTANCE:
        return Change(None, (Refusal(
            next_state, "", "a performed step with this SOP Instance UID is held already",
            "create each performed step under a new UID; if this was a repeat, go on with N-SET",
        ),))  # fmt: skip
    doing = _Doing(rules)
    for lack in said.lacks:
        doing.lack(lack, refused=rules.whole_table or lack.essential)
    doing.judge(said.faults)
    if next_state is RefusalKind.BAD_VALUE:
        doing.refusals.append(_bad_status("a performed step is created IN PROGRESS"))
    if doing.refusals or not isinstance(next_state, MPPSState):
        return doing.change(None)
    attributes = {tag: spoken for tag, spoken in said.attributes.items() if tag not in doing.left_out}
    attributes[STATUS] = {"vr": "CS", "Value": [next_state.value]}
    return doing.change(PerformedStep(sop_instance_uid, next_state, attributes, calling_ae_title))


def amend(held: PerformedStep | None, said: Said, calling_ae_title: str, rules: Rules) -> Change:
    """N-SET (PS3.4 F.7.2.2): the step with what was said. A sequence is replaced whole. Pure."""
    next_state = TRANSITIONS[Operation.SET, held.state if held else None, requested_status(said.attributes)]
    if held is None or next_state is RefusalKind.NO_SUCH_INSTANCE:
        return Change(None, (Refusal(
            RefusalKind.NO_SUCH_INSTANCE, "", "no performed step with this SOP Instance UID is held",
            "send the N-CREATE first",
        ),))  # fmt: skip
    if next_state is RefusalKind.STEP_CLOSED:
        return Change(None, (Refusal(
            RefusalKind.STEP_CLOSED, place(STATUS), f"the performed step is {held.state} and may no longer be updated",
            "continue in a new performed step",
        ),))  # fmt: skip
    doing = _Doing(rules)
    if calling_ae_title != held.calling_ae_title:
        doing.another_caller()
        if doing.refusals:
            return doing.change(None)
    doing.judge(said.faults)
    attributes = doing.merged(held.attributes, said.attributes)
    for lack in said.lacks:
        doing.lack(lack, refused=rules.whole_table, kind=RefusalKind.MISSING_VALUE)
    if next_state is RefusalKind.BAD_VALUE:
        doing.refusals.append(_bad_status("is none of IN PROGRESS, COMPLETED, DISCONTINUED"))
    elif next_state is not MPPSState.IN_PROGRESS:
        for lack in lacking_at_the_end(attributes):
            if rules.complete_final:  # 0120 is no status of N-SET (PS3.7 10.1.3.1.9), so absent is answered as empty
                doing.refusals.append(lack.refusal(RefusalKind.MISSING_VALUE))
            else:
                doing.notes.append(f"{lack} in a final state")
    if doing.refusals or not isinstance(next_state, MPPSState):
        return doing.change(None)
    attributes[STATUS] = {"vr": "CS", "Value": [next_state.value]}
    return doing.change(replace(held, state=next_state, attributes=attributes))


@dataclass(slots=True)
class _Doing:
    """What is found while one request is judged by the rules for its sender."""

    rules: Rules
    refusals: list[Refusal] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def change(self, performed: PerformedStep | None) -> Change:
        refusals, notes = tuple(dict.fromkeys(self.refusals)), tuple(dict.fromkeys(self.notes))
        return Change(performed, refusals, tuple(self.kept), tuple(self.left_out), notes)

    def lack(self, lack: Lack, *, refused: bool, kind: RefusalKind | None = None) -> None:
        if refused:
            self.refusals.append(lack.refusal(kind))
        else:
            self.notes.append(str(lack))

    def another_caller(self) -> None:
        if self.rules.own_steps_only:
            self.refusals.append(Refusal(
                RefusalKind.NOT_AUTHORISED, "", "the performed step was created by another AE title",
                "send N-SET from the AE title that sent the N-CREATE",
            ))  # fmt: skip
        else:
            self.notes.append("set by another AE title than created it")

    def judge(self, found: tuple[Fault, ...]) -> None:
        for fault in found:
            if self.rules.whole_table:
                self.refusals.append(fault.refusal())
                continue
            self.notes.append(str(fault))
            if fault.unusable:
                self.left_out.append(str(fault.path[0]))

    def merged(self, held: Attributes, said: Mapping[str, Element]) -> Attributes:
        """What is held with what was said."""
        attributes = dict(held)
        for tag, spoken in said.items():
            if tag == STATUS or tag in self.left_out:
                continue
            if tag == CHARACTER_SET:  # everything is held in Unicode, so what was created stays true (F.7.2.2.3)
                if not same(held.get(tag), spoken):
                    self.notes.append("its character set is not that of the N-CREATE")
                continue
            row = BY_TAG.get(tag)
            if row is not None and not row.settable:
                if not same(held.get(tag), spoken):
                    self._not_changed(tag)
            elif row is not None and row.on_set.endswith("/1") and not valued(spoken):
                # Nothing usable was said, so what is held stays.
                self.lack(Lack((tag,), row, absent=False), refused=self.rules.whole_table)
            else:
                if row is not None and tag not in held:
                    self._never_created(tag)
                attributes[tag] = spoken
        return attributes

    def _not_changed(self, tag: str) -> None:
        self.kept.append(tag)
        if self.rules.no_changes:
            self.refusals.append(
                Refusal(RefusalKind.BAD_VALUE, place(tag), "may not be changed by N-SET", _LEAVE_OUT)
            )  # fmt: skip

    def _never_created(self, tag: str) -> None:
        if self.rules.no_changes:
            self.refusals.append(Refusal(
                RefusalKind.BAD_VALUE, place(tag), "was not created, so it cannot be set",
                "send it in the N-CREATE, at zero length if nothing is known yet (PS3.4 F.7.2.2.2)",
            ))  # fmt: skip
        else:
            self.notes.append(f"{place(tag)} was set without having been created")


_LEAVE_OUT = "leave it out (PS3.4 F.7.2.2.2)"


def _bad_status(text: str) -> Refusal:
    return Refusal(RefusalKind.BAD_VALUE, place(STATUS), text, "see PS3.4 F.7.2")
