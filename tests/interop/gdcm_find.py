"""Run by Debian's own Python, which has GDCM's bindings: `gdcm_find.py HOST PORT QUERY-FILE TAG...`.

Asks for the worklist with the data set of a DICOM file, and prints one JSON object for each answer: the values of those
tags as GDCM gives them (`ggggeeee`, or `ggggeeee/ggggeeee` in the first item of a sequence).

GDCM 3.0.21 has no worklist on the command line (`gdcmscu --worklist` sends a Study Root query), and whatever it asked
and whomever, it aborts itself when it releases an association: `ProtocolStream as nullptr is invalid`, with wlmscpfs
as with us. So this says what it received and leaves without a release, which a listener has to bear too.
"""

import json
import os
import sys
from typing import Any

import gdcm

TIMEOUT_S = 30
KEPT: list[Any] = []
"""What must not be freed: the bindings free some objects while others still point to them."""


def main(host: str, port: int, query_file: str, tags: list[str]) -> None:
    """Ask and print."""
    reader = gdcm.Reader()
    reader.SetFileName(query_file)
    check(reader.Read(), "the query cannot be read")
    query = gdcm.CompositeNetworkFunctions.ConstructQuery(
        gdcm.eStudyRootType, gdcm.eStudy, reader.GetFile().GetDataSet(), gdcm.eWLMFind
    )
    contexts = gdcm.PresentationContextGenerator()
    check(contexts.GenerateFromUID(gdcm.UIDs.ModalityWorklistInformationModelFIND), "no presentation context")
    user = gdcm.ServiceClassUser()
    user.SetHostname(host)
    user.SetPort(port)
    user.SetTimeout(TIMEOUT_S)
    user.SetAETitle("GDCM")
    user.SetCalledAETitle("GATEWAY")
    check(user.InitializeConnection(), "no connection")
    user.SetPresentationContexts(contexts.GetPresentationContexts())
    check(user.StartAssociation(), "no association")
    answers = gdcm.DataSetArrayType()
    check(user.SendFind(query, answers), "the query failed")
    for number in range(answers.size()):
        answer = answers[number]
        print(json.dumps({tag: value_of(answer, tag) for tag in tags}))
    sys.stdout.flush()
    os._exit(0)  # see above


def value_of(dataset: Any, path: str) -> str:
    """The value at a path, '' where there is none."""
    tag, _, rest = path.partition("/")
    found = gdcm.Tag(int(tag[:4], 16), int(tag[4:], 16))
    if not dataset.FindDataElement(found):
        return ""
    if rest:
        items = dataset.GetDataElement(found).GetValueAsSQ()
        inside = items.GetItem(1).GetNestedDataSet()
        KEPT.extend((items, inside))
        return value_of(inside, rest)
    file = gdcm.File()
    file.SetDataSet(dataset)
    texts = gdcm.StringFilter()
    texts.SetFile(file)
    KEPT.extend((file, texts))
    return str(texts.ToString(found)).rstrip(" \0")


def check(done: bool, otherwise: str) -> None:
    if not done:
        sys.stderr.write(otherwise + "\n")
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])
