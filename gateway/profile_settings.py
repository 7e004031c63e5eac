"""What a device profile may say: the models of `profiles.yaml`. What it does is in `domain.devices`."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from gateway.domain.attributes import BY_KEYWORD, LENGTH_MAX, SPS_SEQUENCE, Level
from gateway.domain.devices import CannotShow, CharacterSets, DateWindow, Leaves, Profile, Sees, WhenMore
from gateway.domain.matching import compile_query
from gateway.domain.refusal import Refused
from gateway.wire.charsets import DEFINED_TERMS
from gateway.wire.dicom_json import element_from_text
from gateway.yaml_files import Strict

OWN_AE_TITLE = "{ae_title}"
"""Stands in a profile's `force` for the AE title of the device that has the profile."""


class DateWindowSettings(Strict):
    """Days around today, inclusive."""

    days_before: int = Field(0, ge=0, le=3650, description="days before today")
    days_after: int = Field(0, ge=0, le=3650, description="days after today")


def _checked_terms(terms: tuple[str, ...]) -> tuple[str, ...]:
    """An empty first value is the default repertoire of a set with code extensions (PS3.3 C.12.1.1.2)."""
    for position, term in enumerate(terms):
        if term not in DEFINED_TERMS and not (term == "" and position == 0 and len(terms) > 1):
            raise ValueError(
                f"{term or 'an empty text'} is no defined term of Specific Character Set, such as ISO_IR 100"
            )
    return terms


class CharacterSetSettings(Strict):
    """What a device can read and show, as defined terms such as ISO_IR 100."""

    declared: tuple[str, ...] = Field((), description="sets its conformance statement names, best first")
    fixed: tuple[str, ...] = Field((), description="the values of the one Specific Character Set it is answered in")
    cannot_show: CannotShow = Field(
        CannotShow.SWITCH,
        description="a letter that the fixed set does not hold: transliterate, replace by ?, or switch",
    )
    assumed: tuple[str, ...] = Field(
        (), description="what its queries are written in where they do not say, or wrongly"
    )

    _terms = field_validator("declared", "fixed", "assumed")(_checked_terms)


class ProfileSettings(Strict):
    """One entry of `profiles.yaml`: the rules that one kind of device needs, and why."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64, description="what devices name it by")
    reason: str = Field(min_length=1, description="why a device needs it; shown by `gateway worklist why`")
    sees: Sees = Field(Sees.ALL, description="all: the whole list; own: steps of its AE title; group: of its group")
    ignore: tuple[str, ...] = Field((), description="keys whose values do not count, by keyword or tag (8 hex digits)")
    force: dict[str, str] = Field({}, description="keys asked whatever the device asks; {ae_title} is its own AE title")
    fill: dict[str, str] = Field({}, description="values returned for keys asked for that the item has none for")
    answers_max: int = Field(0, ge=0, le=100_000, description="most items in one answer; 0: no limit")
    when_more: WhenMore = Field(
        WhenMore.FAILURE,
        description="how a longer answer ends: failure (A700), or success for devices that then show none",
    )
    leaves: Leaves = Field(
        Leaves.COMPLETED, description="when an item leaves its list: at IN PROGRESS, or at COMPLETED of its MPPS"
    )
    character_sets: CharacterSetSettings = CharacterSetSettings()
    date_window: DateWindowSettings | None = Field(
        None, description="days shown to a query that names neither date nor patient nor order"
    )
    empty_values: bool = Field(
        False, description='whether a key of two quotation marks asks for "no value" (C.2.2.2.7)'
    )
    whole_names: bool = Field(False, description="whether Doe finds only Doe, and not Doe^Jane")

    @field_validator("ignore")
    @classmethod
    def _known_keys(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            if key not in BY_KEYWORD and not _is_tag(key):
                raise ValueError(f"{key} is neither a keyword of the worklist nor a tag of 8 hex digits")
        return tuple(key.upper() if _is_tag(key) else key for key in keys)

    @field_validator("force", "fill")
    @classmethod
    def _usable_values(cls, values: dict[str, str]) -> dict[str, str]:
        for keyword, value in values.items():
            row = BY_KEYWORD.get(keyword)
            if row is None or row.vr == "SQ" or row.level in (Level.NESTED, Level.IDENTIFIER):
                raise ValueError(f"{keyword} is no worklist key that has a value of its own")
            try:
                element_from_text(row.vr, value)
            except ValueError:
                raise ValueError(f"{keyword} cannot hold this value: its VR is {row.vr}") from None
        return values

    @field_validator("fill")
    @classmethod
    def _fitting_values(cls, values: dict[str, str]) -> dict[str, str]:
        for keyword, value in values.items():
            longest = LENGTH_MAX.get(BY_KEYWORD[keyword].vr)
            if not value.strip() or (longest is not None and len(value) > longest):
                raise ValueError(f"{keyword} cannot hold this value: it is empty or longer than {longest} characters")
        return values

    @model_validator(mode="after")
    def _keys_compile(self) -> "ProfileSettings":
        keys: dict[str, Any] = {}
        step: dict[str, Any] = {}
        for keyword, value in self.force.items():
            row = BY_KEYWORD[keyword]
            (step if row.level is Level.STEP else keys)[row.tag] = element_from_text(row.vr, value)
        try:
            compile_query(keys | {SPS_SEQUENCE: {"vr": "SQ", "Value": [step]}})
        except Refused as refused:
            raise ValueError(f"force: {refused.refusals[0]}") from None
        return self

    def profile(self) -> Profile:
        """The profile these settings mean."""
        said = self.character_sets
        window = self.date_window
        return Profile(
            name=self.name,
            reason=self.reason,
            sees=self.sees,
            ignore=self.ignore,
            force=tuple(self.force.items()),
            fill=tuple(self.fill.items()),
            answers_max=self.answers_max,
            when_more=self.when_more,
            leaves=self.leaves,
            character_sets=CharacterSets(said.declared, said.fixed, said.cannot_show, said.assumed),
            date_window=DateWindow(window.days_before, window.days_after) if window else None,
            empty_values=self.empty_values,
            whole_names=self.whole_names,
        )


class ProfilesFile(Strict):
    """`profiles.yaml`."""

    profiles: tuple[ProfileSettings, ...] = ()


def _is_tag(text: str) -> bool:
    return len(text) == 8 and all(digit in "0123456789abcdefABCDEF" for digit in text)
