"""Whatever order its messages arrive in, a sender's facts end in the worklist that their true order makes.

Through message bytes, the road of a listener and a database file that is closed and opened again, to the items that a
modality would see. What was refused is sent again when everything else has come, as a sender does that was told so.
"""

import asyncio
import shutil
from contextlib import contextmanager
from dataclasses import replace

from histories import Sent, histories
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from gateway.domain.attributes import SPS_SEQUENCE, text
from gateway.domain.identifiers import Identifier, Mint
from gateway.domain.matching import Narrowing
from gateway.domain.worklist import LISTED, SPSStatus
from gateway.edges.store import Store
from gateway.processing import feeds_of, process_message


class Road:
    """A database file, and what a listener does with what comes down the line."""

    def __init__(self, loaded, database, profile):
        self._loaded, self._database, self._profile = loaded, database, profile
        self._open()

    def _open(self):
        self._store = Store(f"sqlite:///{self._database}", zone="Europe/Berlin")
        feed = feeds_of(self._loaded, Mint(self._store.site_namespace()))["ris"]
        self._feeds = [replace(feed, name=name, **self._profile) for name in ("ris", "other")]

    def restart(self):
        self._store.close()
        self._open()

    def close(self):
        self._store.close()

    def send(self, raw, listener=0):
        receipt = asyncio.run(process_message(self._store, raw, self._feeds[listener], "test"))
        assert "internal" not in receipt.kinds
        return receipt

    def steps(self):
        """Every step, whatever its status."""
        refs = self._store.reader.candidates(Narrowing(statuses=frozenset(SPSStatus)))
        return self._store.reader.items([step_id for step_id, _ in refs])

    def orders(self, placer):
        return self._store.reader.orders(Identifier(placer, "OE"), None)

    def items(self):
        """Of every step what a modality may see, by what nothing changes."""
        return sorted(((item.status.value, _lasting(item)) for item in self.steps()), key=str)


def _lasting(item):
    """What is shown, without the step where it is not listed: what is over stays as it was known when it was done."""
    return {tag: each for tag, each in item.attributes.items() if item.status in LISTED or tag != SPS_SEQUENCE}


@contextmanager
def road(template, folder, profile):
    loaded, empty = template
    database = folder / "gateway.db"
    for leftover in folder.glob("gateway.db*"):
        leftover.unlink()
    shutil.copy(empty, database)
    opened = Road(loaded, database, profile)
    try:
        yield opened
    finally:
        opened.close()


RESTART = "restart"


def in_true_order(template, folder, profile, facts):
    """Those of the facts that are taken one after the other, and the items they end in."""
    while True:
        with road(template, folder, profile) as opened:
            taken = [fact for fact in facts if opened.send(fact.raw).disposition == "accepted"]
            if len(taken) == len(facts):
                return facts, opened.items()
        facts = taken


def as_arriving(template, folder, profile, arriving):
    """The items that they end in, and what became of each, for people."""
    told, refused = [], []
    with road(template, folder, profile) as opened:
        for sent in arriving:
            if sent == RESTART:
                opened.restart()
                continue
            receipt = opened.send(sent.raw)
            told.append(f"{sent}: {receipt.disposition} {' '.join(receipt.kinds)}")
            if receipt.disposition == "refused":
                refused.append(sent)
        while refused:
            left = [sent for sent in refused if opened.send(sent.raw).disposition == "refused"]
            told.append(f"refused and sent again: {len(refused)}, refused again: {len(left)}")
            if left == refused:
                break
            refused = left
        return opened.items(), told


def _step(attributes):
    return attributes[SPS_SEQUENCE]["Value"][0] if SPS_SEQUENCE in attributes else {}


def difference(expected, found):
    """What differs, for people."""
    lines = [f"{len(found)} items instead of {len(expected)}"] if len(found) != len(expected) else []
    for (status, was), (status_now, now) in zip(expected, found, strict=False):
        lines += [f"status {status_now} instead of {status}"] if status != status_now else []
        for before, after in ((was, now), (_step(was), _step(now))):
            changed = [tag for tag in sorted({*before, *after} - {SPS_SEQUENCE}) if before.get(tag) != after.get(tag)]
            lines += [f"{tag}: {after.get(tag)} instead of {before.get(tag)}" for tag in changed]
    return lines


@st.composite
def scenes(draw):
    """A history, and how its messages arrive: shuffled, some twice, with restarts of the gateway between them."""
    history = [Sent(fact, minute) for minute, fact in enumerate(draw(histories()))]
    doubled = draw(st.lists(st.sampled_from(history), max_size=3))
    renamed = draw(st.lists(st.sampled_from(history), max_size=2))
    many = [*history, *doubled, *(replace(sent, again=True) for sent in renamed), *[RESTART] * draw(st.integers(0, 2))]
    return history, draw(st.permutations(many)), draw(profiles)


profiles = st.fixed_dictionaries({"discontinue_started": st.booleans(), "cancel_unsaid": st.booleans()})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(scene=scenes())
def test_messages_in_any_order_end_in_the_same_worklist(template, tmp_path, scene):
    history, arriving, profile = scene
    facts, expected = in_true_order(template, tmp_path, profile, history)
    taken = {sent.minute for sent in facts}
    found, told = as_arriving(
        template, tmp_path, profile, [sent for sent in arriving if sent == RESTART or sent.minute in taken]
    )
    note("\n".join(told))
    assert difference(expected, found) == []


@st.composite
def conversations(draw):
    """What two senders say of the same orders and people, each by a clock of its own, in the order of arrival."""
    own = [[Sent(fact, minute) for minute, fact in enumerate(draw(histories()))] for _ in range(2)]
    off = draw(st.integers(0, 20))
    turns = draw(st.permutations([0] * len(own[0]) + [1] * len(own[1])))
    waiting = [iter(own[0]), iter([replace(sent, minute=sent.minute + off) for sent in own[1]])]
    return [(turn, next(waiting[turn])) for turn in turns], draw(profiles)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(conversation=conversations())
def test_two_senders_with_clocks_of_their_own_never_break_what_is_held(template, tmp_path, conversation):
    said, profile = conversation
    published, accessions = {}, {}
    with road(template, tmp_path, profile) as opened:
        for listener, sent in said:
            receipt = opened.send(sent.raw, listener)
            note(f"{listener} {sent}: {receipt.disposition} {' '.join(receipt.kinds)}")
            assert (receipt.disposition == "accepted") is (b"MSA|AA|" in receipt.answer)
            placers = set()
            for item in opened.steps():
                placer = text(item.attributes, "PlacerOrderNumberImagingServiceRequest")
                placers.add(placer)
                uid, accession = (text(item.attributes, key) for key in ("StudyInstanceUID", "AccessionNumber"))
                assert published.setdefault(item.step_id, uid) == uid
                if accessions.get(item.step_id, accession) != accession:
                    assert accession == f"A{placer[1:]}"  # what a sender said took the place of the one made here
                accessions[item.step_id] = accession
            assert placers <= {"P1", "P2"}
            assert all(len(opened.orders(placer)) == 1 for placer in placers)
