"""`predict ARCHIVE --out FILE`: a zip or folder of any size, a row of JSON for each of its files.

Files are answered in blocks. A block's rows are written as one file, whole or not at all, under a name that only its
number decides: work that was killed goes on with the blocks that are missing, and none can count twice. With
RAY_ADDRESS set, Ray Data spreads the blocks over a cluster, and blocks of a node that dies go to another.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fsspec

from medfusion import cluster, library, places
from medfusion.commands.predict import Answerer
from medfusion.errors import ConfigError, DataError, MedFusionError
from medfusion.sources import NOT_UNPACKED, Source, Zip, open_source

BLOCK = 128  # files
JOB = "job.json"
ROUNDS = 3  # how often blocks that were lost with nodes are given out again


@dataclass(frozen=True)
class Job:
    """What is answered by what. Rows of two jobs are never mixed."""

    source: str  # path or fsspec URL
    files: int
    names_sha256: str
    model: str
    versions: dict[str, str]  # of the models that may answer, by id: the checksum of their weights
    frame: int | None  # None: of several the most suspicious one
    block: int

    @property
    def blocks(self) -> range:
        return range(-(-self.files // self.block))


def score(source: str, out: Path, model_id: str, device: str | None, frame: int | None) -> int:
    """Write a row for each file to out, in the order of their names. Returns how many were not answered.

    Raises ConfigError when out is there already, or when its parts are of another job.
    """
    if out.exists():
        raise ConfigError(f"{out.name} is there already. Remove it, or name another file with --out.")
    source = source if "://" in source else str(Path(source).absolute())
    with opened(source) as files:
        names = listed(files)
    parts = out.absolute().with_name(f"{out.name}.parts")
    known = hashlib.sha256("\n".join(names).encode()).hexdigest()
    job = begin(parts, Job(source, len(names), known, model_id, versions(model_id), frame, BLOCK))
    told = Told(len(job.blocks))
    for _ in range(ROUNDS):
        left = missing(parts, job)
        told.at(len(job.blocks) - len(left))
        if not left:
            break
        work = on_cluster if cluster.is_wanted() else here
        work(job, parts, device, left, told.one_more)
    if left := missing(parts, job):
        raise ConfigError(f"{len(left)} of {len(job.blocks)} blocks were lost with their nodes. Run the same to go on.")
    return merge(job, parts, out)


def begin(parts: Path, job: Job) -> Job:
    """Note what the parts are of. Raises ConfigError where they are of something else."""
    parts.mkdir(parents=True, exist_ok=True)
    note = parts / JOB
    if not note.exists():
        places.write_whole(note, json.dumps(asdict(job), indent=1).encode())
    elif json.loads(note.read_text(encoding="utf-8")) != asdict(job):
        raise ConfigError(
            f"{parts.name} holds answers to another archive, or by another model. Remove it, or name another --out."
        )
    return job


def versions(model_id: str) -> dict[str, str]:
    cards = library.list_cards() if model_id == "auto" else [library.read_card(library.find(model_id))]
    return {card.id: card.weights_sha256 for card in cards}


@contextmanager
def opened(source: str) -> Iterator[Source]:
    """A zip or folder on this machine, or a zip behind an fsspec URL, of which only what is needed is fetched."""
    if "://" not in source:
        with open_source(Path(source)) as files:
            yield files
        return
    try:
        with fsspec.open(source, "rb") as stream, zipfile.ZipFile(stream) as archive:
            yield Zip(source.rpartition("/")[2], archive)
    except (ImportError, *NOT_UNPACKED) as error:  # a protocol that fsspec does not know is a ValueError
        raise DataError(f"{source} cannot be opened as a zip ({error}). Check the address.") from error


def listed(files: Source) -> list[str]:
    names = sorted(name for name in files.names() if not any(part.startswith(".") for part in name.split("/")))
    if not names:
        raise DataError("The archive holds no files. Name one with scans in it.")
    return names


def missing(parts: Path, job: Job) -> list[int]:
    return [block for block in job.blocks if not part_of(parts, block).exists()]


def part_of(parts: Path, block: int) -> Path:
    return parts / f"{block:06}.jsonl"


class Scorer:
    """Answers whole blocks; the model is loaded once."""

    def __init__(self, job: Job, parts: Path, device: str | None) -> None:
        self.job, self.parts = job, parts
        self.answerer = Answerer(job.model, device, job.frame)

    def score(self, block: int) -> None:
        with opened(self.job.source) as files:
            names = listed(files)[block * self.job.block : (block + 1) * self.job.block]
            rows = [self.row(files, name) for name in names]
        text = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
        places.write_whole(part_of(self.parts, block), text.encode())

    def row(self, files: Source, name: str) -> dict[str, object]:
        try:
            found = self.answerer.answer_bytes(name, files.read(name))
        except MedFusionError as error:
            found = {"path": name, "status": "error", "error": str(error)}
        found.pop("elapsed_s", None)  # all else is the same in every run
        return found


def here(job: Job, parts: Path, device: str | None, left: Iterable[int], done: Callable[[], None]) -> None:
    scorer = Scorer(job, parts, device)
    for block in left:
        scorer.score(block)
        done()


class RayScorer:
    """What Ray Data makes of each actor: blocks in, their numbers out. The rows never pass through the cluster."""

    def __init__(self, job: dict[str, Any], parts: str, device: str | None) -> None:
        self.scorer = Scorer(Job(**job), Path(parts), device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        for block in batch["item"]:
            if not part_of(self.scorer.parts, int(block)).exists():  # given out twice after a node was lost
                self.scorer.score(int(block))
        return batch


def on_cluster(job: Job, parts: Path, device: str | None, left: list[int], done: Callable[[], None]) -> None:
    """Parts must lie in storage that all nodes share."""
    cluster.connect()
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    actors = max(1, min(len(left), int(ray.cluster_resources().get("CPU", 1))))
    data = ray.data.from_items(left, override_num_blocks=len(left)).map_batches(
        RayScorer, fn_constructor_args=(asdict(job), str(parts), device), batch_size=1, num_cpus=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors), max_restarts=-1, max_task_retries=-1,
    )  # fmt: skip
    try:
        for _ in data.iter_batches(batch_size=1):
            done()
    except ray.exceptions.RayError as error:
        sys.stderr.write(f"Part of the cluster was lost ({type(error).__name__}); its blocks are given out again.\n")


def merge(job: Job, parts: Path, out: Path) -> int:
    """All parts as one file, in order. Returns how many files were not answered."""
    fresh, rows, failed = parts / "all", 0, 0
    with fresh.open("w", encoding="utf-8") as into:
        for block in job.blocks:
            for line in part_of(parts, block).read_text(encoding="utf-8").splitlines(keepends=True):
                into.write(line)
                rows += 1
                failed += json.loads(line)["status"] != "ok"
    if rows != job.files:
        raise ConfigError(f"{parts.name} holds {rows} rows for {job.files} files. Remove it and run again.")
    fresh.replace(out)
    shutil.rmtree(parts)
    return failed


class Told:
    """Progress on the error channel: a line for each hundredth."""

    def __init__(self, blocks: int) -> None:
        self.blocks, self.done, self.said = blocks, 0, -1

    def at(self, done: int) -> None:
        self.done = done
        share = 100 * done // max(1, self.blocks)
        if share > self.said:
            self.said = share
            sys.stderr.write(f"{done} of {self.blocks} blocks, {share} %\n")

    def one_more(self) -> None:
        self.at(self.done + 1)
