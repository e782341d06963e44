"""What a run tells while it works: a line of JSON for each event, appended to events.jsonl in its folder.

Kinds: `begin` (epochs, cases, batch_size, device), `step` (now and then), `epoch` (figures of val), `phase` (what is
done now, in words) and `note` (what the reader should know, in words).
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

FILE = "events.jsonl"
SHOWN = ("train_loss", "val_loss", "val_auroc", "val_accuracy")
Event = dict[str, Any]


class Journal:
    """Appends to the events of one run."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        with suppress(OSError), self.path.open("rb+") as file:  # it is not there yet, or empty
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a killed process left its last line half written
                file.write(b"\n")

    def tell(self, kind: str, **said: object) -> None:
        line = json.dumps({"kind": kind, "at": time.time()} | said)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def read_events(folder: Path) -> list[Event]:
    """All events so far, oldest first. A line that a killed process left half written is passed over."""
    try:
        lines = (folder / FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def epochs(events: list[Event]) -> list[Event]:
    """The epochs in order; one that was run twice, because the process was killed in between, counts once."""
    by_number = {event["epoch"]: event for event in events if event["kind"] == "epoch"}
    return [by_number[number] for number in sorted(by_number)]


def last(events: list[Event], kind: str) -> Event | None:
    return next((event for event in reversed(events) if event["kind"] == kind), None)


def in_lines(events: list[Event]) -> list[str]:
    """What happened, a line each with the time of day: phases, epochs and notes."""
    lines = []
    for event in events:
        if event["kind"] in ("phase", "note"):
            said = event["text"]
        elif event["kind"] == "epoch":
            figures = [f"{name.replace('_', ' ')} {event[name]:.3f}" for name in SHOWN if name in event]
            said = f"Epoch {event['epoch'] + 1}: {', '.join(figures)}"
        else:
            continue
        lines.append(f"{datetime.fromtimestamp(event['at']):%H:%M:%S} {said}")
    return lines
