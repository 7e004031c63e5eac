"""Messages share what their fields came to: the whole corpus leaves every value of every message as it was made."""

import asyncio
from copy import deepcopy

import pytest

from gateway.config import load_site
from gateway.domain.identifiers import Mint
from gateway.domain.mapping import Mapping
from gateway.edges.store import Store
from gateway.processing import feeds_of, process_message
from gateway.testing import free_port, site
from tests.cases.hl7_corpus.model import cases, listeners


@pytest.fixture
def read(monkeypatch):
    """Every document that was read, how, what it came to, and a copy of that as it was then."""
    found = []
    apply = Mapping.apply

    def remembered(mapping, document, **how):
        result = apply(mapping, document, **how)
        found.append((mapping, document, how, result, deepcopy(result.events)))
        return result

    monkeypatch.setattr(Mapping, "apply", remembered)
    yield found
    monkeypatch.undo()


def test_no_order_changes_what_another_was_made_of(tmp_path, read):
    told = [
        {**each, "host": "127.0.0.1", "port": free_port()} for each in listeners() if each.get("validate") != "strict"
    ]
    loaded = load_site(site(tmp_path, hl7=told, timezone="Europe/Berlin"))
    with Store(loaded.store_url, zone="Europe/Berlin") as store:
        feeds = feeds_of(loaded, Mint(store.site_namespace()))
        for number in ("10001", "10002"):  # the second time most of its words are known
            for case in cases():
                if case.listener in feeds:
                    for sent in case.sends:
                        asyncio.run(process_message(store, case.bytes_of(sent, number), feeds[case.listener], "test"))
    again = list(read)
    assert sum(bool(result.events) for *_, result, _ in again) > 100
    for mapping, document, how, result, then in again:
        assert result.events == then
        afresh = mapping.apply(document, **how | {"trace": True})  # with a trace, nothing is remembered
        assert (afresh.events, afresh.refusals, afresh.notes) == (result.events, result.refusals, result.notes)
