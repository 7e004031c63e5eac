"""What the command line does on a site's store beside the running service: import, expire, explain a feed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import UUID

from gateway.config import Site
from gateway.domain.identifiers import Mint
from gateway.domain.refusal import Refused
from gateway.edges.database import StoreUnavailable
from gateway.edges.store import Store
from gateway.processing import feeds_of, now
from gateway.wire.worklist_files import ImportedItem, read_worklist_file
from gateway.workflow import maintain
from gateway.workflow.fhir_feed import OUR_SERVER
from gateway.workflow.importing import import_item
from gateway.workflow.intake import Feed
from gateway.workflow.ports import StepRef

EXAMPLE_MINT = Mint(UUID("00000000-0000-0000-0000-000000000000"))
"""Makes the keys that an explanation shows; a site's real ones come from its own namespace."""

EXPIRED_MAX = 1_000
"""Steps taken off in one transaction, so that the night's work never holds up a message for long."""


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did. `problems` are (file or item, what does not fit), `refused` how many items were left out."""

    imported: int
    refused: int
    problems: tuple[tuple[str, str], ...]


def import_files(site: Site, store: Store, files: Sequence[Path], orders_site: str = "") -> ImportReport:
    """Import every item of the files; one that is refused leaves the others alone. `orders_site` is whose they are."""
    mint = Mint(store.site_namespace())
    imported = refused = 0
    problems: list[tuple[str, str]] = []
    for item in _items(site, files, problems):
        try:
            store.write(
                partial(import_item, item=item, mint=mint, issuers=site.issuers, at=now(), site=orders_site)
            ).result()
        except (Refused, StoreUnavailable) as error:
            refused += 1
            reasons = error.refusals if isinstance(error, Refused) else (error,)
            problems += [(item.name, f"refused: {reason}") for reason in reasons]
            continue
        imported += 1
        problems += [(item.name, f"lacks {keyword}") for keyword in item.missing]
        problems += [(item.name, note) for note in item.notes]
    refused += sum(text.startswith("unreadable") for _, text in problems)
    return ImportReport(imported, refused, tuple(problems))


def _items(site: Site, files: Sequence[Path], problems: list[tuple[str, str]]) -> Iterator[ImportedItem]:
    for path in files:
        try:
            yield from read_worklist_file(path.read_bytes(), path.name, site.issuers)
        except Refused as error:
            problems += [(path.name, f"unreadable: {refusal}") for refusal in error.refusals]
        except OSError as error:
            problems.append((path.name, f"unreadable: {error.strerror}"))


def expiring(site: Site, store: Store) -> tuple[str, Sequence[StepRef]]:
    """The start (14 digits) before which waiting steps expire, and a batch of those that now would."""
    limit = maintain.expiry_limit(site.wall_clock(now()), site.settings.expiry.after_days)
    return limit, store.reader.expiring(limit, EXPIRED_MAX)


def feed_for_explaining(site: Site, listener: str) -> Feed | None:
    """The named listener's feed, or the first; None where there is no such listener."""
    feeds = feeds_of(site, EXAMPLE_MINT)
    return feeds.get(listener) if listener else next(iter(feeds.values()), None)


def came_by_fhir(site: Site, listener: str) -> bool:
    """Whether an archived message came by our FHIR server or a FHIR feed."""
    fhir = site.settings.fhir
    return listener == OUR_SERVER or (fhir is not None and listener in {each.name for each in fhir.feeds})
