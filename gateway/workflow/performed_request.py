"""N-CREATE and N-SET as they come, and as read: what takes long for large ones is done before their transaction."""

from dataclasses import dataclass, field, replace

from gateway.domain.performed import Operation
from gateway.domain.performed_rules import Said, judged
from gateway.domain.refusal import Refusal, Refused
from gateway.wire.mpps_dataset import read_step, readable_uid, said_instance_uid


@dataclass(frozen=True, slots=True)
class PerformRequest:
    """An N-CREATE or N-SET as received; `sop_instance_uid` is '' where the command gave none."""

    sop_instance_uid: str
    calling_ae_title: str
    transfer_syntax: str
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A request with what is in it. `request` bears the SOP Instance UID without padding, `uid` is '' where it is none.

    `odd` are notes on the dataset; `unreadable` says why nothing could be read of it (`said` is then empty).
    """

    request: PerformRequest
    uid: str
    said: Said = field(repr=False)
    odd: tuple[str, ...] = ()
    unreadable: tuple[Refusal, ...] = ()


def read_request(operation: Operation, request: PerformRequest) -> ReadRequest:
    """Read and judge a request by itself. Pure, and for large datasets slow: a thread is the place for those.

    The UID is that of the command, else that of the dataset: some modalities send it there only.
    """
    odd: tuple[str, ...] = ()
    unreadable: tuple[Refusal, ...] = ()
    said = Said({})
    try:
        attributes, odd = read_step(request.raw, request.transfer_syntax)
        said = judged(operation, attributes)
    except Refused as refused:
        unreadable = refused.refusals
    uid = readable_uid(request.sop_instance_uid or said_instance_uid(said.attributes))
    return ReadRequest(replace(request, sop_instance_uid=uid) if uid else request, uid, said, odd, unreadable)
