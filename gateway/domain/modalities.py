"""The defined terms of Modality (PS3.3 C.7.3.1.1.1), and which words are mistakes for one of them.

New terms come with every edition and devices ask for what they were built with, so a word that is no term here is not
wrong by that; only one that looks like a slip is.
"""

import re
from collections.abc import Mapping

from gateway.domain.problem import nearest

_TERMS = """
ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT IVUS KER
KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE
RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA XA XAPROTOCOL XC
"""

_RETIRED = "AS CD CF CP CS DD DF DM DS EC FA FS LP MA MS OPR ST VF"

TERMS = frozenset(_TERMS.split())
"""Those of today (PS3.16 CID 33)."""

RETIRED = frozenset(_RETIRED.split())
"""Those of earlier editions; a device of that time may still ask for one."""

_SLIP = 0.75
"""From which likeness on a word is a slip: one letter too many (CTX), and not what merely resembles a term (CBCT)."""

_CODE_STRING = re.compile(r"[A-Z0-9 _]{1,16}")


def is_code_string(word: str) -> bool:
    """Whether it can be a modality at all: VR CS (PS3.5 6.2)."""
    return _CODE_STRING.fullmatch(word) is not None


def meant_by(word: str, translations: Mapping[str, str]) -> str:
    """The term that was most likely meant by a word so near to one that it is no new term; '' where the word is fine.

    `translations` are the site's own words for modalities, which know better than likeness what is meant by one.
    """
    if word in TERMS or word in RETIRED or word in translations.values():
        return ""
    near = nearest(word, TERMS, _SLIP)
    translated = translations.get(word, "")
    return (translated if translated in TERMS else near) if near else ""
