"""`pacs`: ask the archives of pacs.toml from the command line: echo, find, fetch, send.

`find` prints names and numbers of patients, as the archive has them; nothing else does.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path

from medfusion import worklist
from medfusion.commands.files import read_bytes, write_json, write_line
from medfusion.errors import ArchiveError, ConfigError, MedFusionError
from medfusion.pacs import archives
from medfusion.pacs.archives import Fetched, Pick
from medfusion.pacs.found import Query


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_subparsers(required=True, metavar="WHAT", dest="what")
    asks = what.add_parser("echo", help="ask archives whether they are there")
    asks.add_argument("archive", nargs="*", metavar="ARCHIVE", help="by name (default: all of the configuration)")
    finds = what.add_parser("find", help="list studies, or the series of one")
    finds.add_argument("archive", metavar="ARCHIVE")
    finds.add_argument("--patient", default="", metavar="ID", help="patient id; * and ? stand for any characters")
    finds.add_argument("--accession", default="", metavar="NUMBER")
    finds.add_argument("--modality", default="", metavar="CODE", help="such as CT or DX")
    finds.add_argument("--date", default="", metavar="DATE", help="20250131, 20250101-20250131, or open at one end")
    finds.add_argument("--study", default="", metavar="UID", help="list the series of this study instead")
    finds.add_argument("--json", action="store_true", help="print JSON for machines")
    brings = what.add_parser("fetch", help="bring studies onto the worklist, without identity")
    brings.add_argument("archive", metavar="ARCHIVE")
    brings.add_argument("--study", required=True, metavar="UID")
    brings.add_argument("--series", nargs="*", default=[], metavar="UID", help="only these series of it")
    sends = what.add_parser("send", help="send reports to the archive that the scan is of")
    sends.add_argument("archive", metavar="ARCHIVE")
    sends.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="DICOM objects that `report` wrote")
    sends.add_argument("--case", type=int, metavar="N", help="make and send the report of a case of the worklist")
    sends.add_argument("--method", default="gradcam,lime", metavar="NAMES", help="maps for --case")
    sends.add_argument("--device", help="where to compute, such as cpu or cuda (default: the GPU where there is one)")


def run(arguments: argparse.Namespace) -> int:
    return {"echo": echo, "find": find, "fetch": fetch, "send": send}[arguments.what](arguments)


def echo(arguments: argparse.Namespace) -> int:
    """Returns 1 when one does not answer, else 0."""
    names = arguments.archive or list(archives.configured())
    if not names:
        raise ConfigError("No archive is configured. Write pacs.toml: the README says how.")
    failed = 0
    for name in names:
        try:
            write_line("ok", name, archives.echo(name))
        except ArchiveError as error:
            write_line("error", name, str(error))
            failed = 1
    return failed


def find(arguments: argparse.Namespace) -> int:
    """Returns 1 when nothing is found, else 0."""
    found: list[object] = []
    if arguments.study:
        found += (series := archives.find_series(arguments.archive, arguments.study))
        for one in [] if arguments.json else series:
            write_line(one.uid, str(one.number), one.modality, one.description, f"{one.objects} objects")
    else:
        query = Query(arguments.patient, arguments.accession, arguments.modality, arguments.date)
        found += (studies := archives.find(arguments.archive, query))
        for study in [] if arguments.json else studies:
            parts = (study.uid, study.date, study.patient_id, study.patient_name, "+".join(study.modalities))
            write_line(*parts, study.description)
        most = archives.named(arguments.archive).max_results
        if len(studies) >= most:
            sys.stderr.write(f"These are the first {most}. Ask for less, or raise max_results.\n")
    if arguments.json:
        write_json([asdict(one) for one in found])  # type: ignore[call-overload]
    return int(not found)


def fetch(arguments: argparse.Namespace) -> int:
    """Returns 1 when something did not come, else 0."""
    picks = [Pick(arguments.study, series) for series in arguments.series] or [Pick(arguments.study)]

    def tell(so_far: Fetched) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{so_far.done} of {so_far.total} ")

    told = archives.fetch(arguments.archive, picks, tell)
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    write_line("error" if told.problems else "ok", replace(told, problems=()).in_words(), *told.problems)
    return int(bool(told.problems))


def send(arguments: argparse.Namespace) -> int:
    if bool(arguments.paths) == (arguments.case is not None):
        raise ConfigError("Name either DICOM objects that `report` wrote, or --case N.")
    if arguments.paths:
        said = archives.send_files(arguments.archive, [read_bytes(path) for path in arguments.paths])
    else:
        said = send_case(arguments)
    write_line("ok", said)
    return 0


def send_case(arguments: argparse.Namespace) -> str:
    from medfusion.commands import report as reports
    from medfusion.report import for_archive

    entry = worklist.find(arguments.case)
    if entry.answer is None:
        raise MedFusionError(f"Case {entry.id} has no answer, so there is nothing to report. Choose another one.")
    content = entry.path.read_bytes()
    made = reports.made(content, entry.answer.model_id, entry.answer.frame, arguments.method, arguments.device)
    for warning in made.prediction.warnings:
        write_line("warning", f"case {entry.id}", warning)
    return archives.send(arguments.archive, entry.id, content, lambda header: for_archive(replace(made, source=header)))
