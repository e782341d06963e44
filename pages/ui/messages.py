"""Errors and names in words for a clinician. A MedFusionError becomes a sentence; any other error stays loud."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import streamlit as st

from medfusion import errors

# Most particular first: the first class that fits gives the headline.
HEADLINES = {
    errors.ScanError: "This file cannot be shown",
    errors.ModelError: "This model cannot be used",
    errors.ExplanationError: "This map cannot be made",
    errors.MedFusionError: "This cannot be done",
}
MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:])")


def headline(error: errors.MedFusionError) -> str:
    return next(text for kind, text in HEADLINES.items() if isinstance(error, kind))


@contextmanager
def explained_errors() -> Iterator[None]:
    """Show an error that the user can mend, and go on below the block."""
    try:
        yield
    except errors.MedFusionError as error:
        st.error(plain(str(error)), title=headline(error), icon=":material/error:")


def plain(text: str) -> str:
    """Text of unknown origin, such as a file's name, that Markdown shows as it is."""
    return escaped(" ".join(text.split()))


def escaped(text: str) -> str:
    """For Markdown, with each number's % on the number's line."""
    return MARKDOWN.sub(r"\\\1", text).replace(" %", "\N{NO-BREAK SPACE}%")


def prose(text: str) -> str:
    """The same of a card's prose: what stands between backticks is code, and nothing else of Markdown counts."""
    parts = " ".join(text.split()).split("`")
    if len(parts) % 2 == 0 or not all(part.strip() for part in parts[1::2]):
        return plain(text)
    return "".join(f"`{part}`" if at % 2 else escaped(part) for at, part in enumerate(parts))


def spoken(name: str) -> str:
    """A class name as it is spoken."""
    return name.replace("_", " ")


def percent(share: float) -> str:
    """A probability in words that never claims certainty."""
    if share >= 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
