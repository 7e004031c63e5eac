"""Writing the archive: messages and what became of them, the mappings that read them, and what retention deletes.

Of performed steps only what retention deletes of their requests; what is held of them is `store_performed`'s.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeVar

from gateway.edges import archive_statements, statements
from gateway.edges.archive_reader import ArchiveReader, Prunable, key_pairs
from gateway.edges.database import Connection, StoreError
from gateway.edges.stored_values import json_text, utc_text
from gateway.workflow.ports import MessageRecord

T = TypeVar("T")


class ArchiveUnit(ArchiveReader):
    """The archive's part of a `StoreUnit`."""

    _write: Connection

    def add_message(self, record: MessageRecord) -> int:
        """Archive a message; its number."""
        keys = list(dict.fromkeys(record.keys))
        message_id = self._write.insert(
            statements.MESSAGE_INSERT,
            received_at=utc_text(record.received_at), listener=record.listener, peer=record.peer,
            sender=record.sender, control_id=record.control_id, message_type=record.message_type,
            digest=record.digest, raw=record.raw, disposition=record.disposition, reasons=record.reasons,
            answer=record.answer, mapping=record.mapping, search_keys=json_text(keys),
            replay_of=record.replay_of, direction=record.direction, made_at=record.made_at,
        )  # fmt: skip
        if keys:
            self._write.run_many(
                statements.MESSAGE_KEY_INSERT,
                [{"message_id": message_id, "kind": kind, "value": value} for kind, value in keys],
            )
        return message_id

    def set_message_disposition(self, message_id: int, disposition: str, reasons: str) -> None:
        """What became of a message that was held, came early or waited to be sent."""
        if not self._write.run(
            statements.MESSAGE_SET_DISPOSITION, key_id=message_id, disposition=disposition, reasons=reasons
        ):
            raise StoreError("there is no such message")

    def save_mapping_version(self, version: str, content: str, at: datetime) -> None:
        """Keep a mapping as it is now, so that traces can be made again; one that is kept already stays as it is."""
        if self.mapping_version(version) is None:
            self._write.run(
                archive_statements.MAPPING_VERSION_INSERT, version=version, content=content, first_used_at=utc_text(at)
            )

    def keep_report(self, message_id: int, report: bytes) -> None:
        """Keep what a message of ours was written from (`workflow.kept_reports`)."""
        self._write.run(archive_statements.REPORT_INSERT, message_id=message_id, report=report)

    def delete_messages(self, numbers: Iterable[int]) -> int:
        """Delete these messages with their keys; how many there were."""
        keys: list[dict[str, object]] = []
        wanted = list(numbers)
        for number in wanted:
            row = self._write.row(archive_statements.MESSAGE_KEYS, id=number)
            if row is not None:
                keys += [{"message_id": number, "kind": kind, "value": value} for kind, value in key_pairs(row[0])]
        self._write.run_many(archive_statements.MESSAGE_KEY_DELETE, keys)
        self._write.run_many(archive_statements.REPORT_DELETE, [{"id": number} for number in wanted])
        return sum(self._write.run(archive_statements.MESSAGE_DELETE, id=number) for number in wanted)

    def prune_messages(self, before: int, limit: int, after: int = 0) -> Prunable:
        """Look at the next `limit` messages between these numbers and delete those that may go."""
        found = self.prunable_messages(before, limit, after)
        self.delete_messages(found.numbers)
        return found

    def prune_requests(self, before: int, limit: int, after: int = 0) -> Prunable:
        """Look at the next `limit` MPPS requests between these numbers and delete those that may go."""
        found = self.prunable_requests(before, limit, after)
        self._write.run_many(archive_statements.REQUEST_DELETE, [{"id": number} for number in found.numbers])
        return found

    def give_back_space(self, pages: int) -> int:
        """Give at most so many unused pages of the database's file back to the disk; how many are left."""
        return self._write.give_back(pages)

    def attempt(self, use_case: Callable[[], T]) -> T:
        """Run a part of a job that may fail: then what it did is undone, and what it raised goes on to the caller."""
        self._write.control("SAVEPOINT attempt")
        try:
            done = use_case()
        except BaseException:
            self._write.control("ROLLBACK TO attempt")
            self._write.control("RELEASE attempt")
            raise
        self._write.control("RELEASE attempt")
        return done
