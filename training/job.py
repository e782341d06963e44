"""What the child process of a run does: wait for the device, train, compare, and say how it ended.

`python -m training.job FOLDER`, started by `training/jobs.py`. Research use only.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path

from medfusion import cluster
from medfusion.background import give_way
from medfusion.errors import MedFusionError
from training import jobs, memory
from training.events import Journal
from training.jobs import DONE, FAILED, RUNNING, State, write_state

RESERVED_BYTES = 2**16
LITTLE_BYTES = 100 * 2**20  # a disk with less is full


def main(folder: Path) -> int:
    told: list[str] = []

    def tell(text: str) -> None:
        if told[-1:] != [text]:
            told.append(text)
            Journal(folder).tell("phase", text=text)

    if cluster.is_wanted():
        tell("Waiting for a machine of the cluster")
        return on_cluster(folder)
    give_way()
    lock = jobs.wait_for_turn(folder, tell)
    try:
        attend(folder)
    except Exception:
        return 1
    finally:
        lock.release()
    return 0


def on_cluster(folder: Path) -> int:
    """Wait for machines, have them do it, and see that an end is written in any case."""
    from training.cluster import train
    from training.job import attend  # by its name: this module has another one while it is the program

    try:
        train(partial(attend, folder), folder)
    except Exception as error:
        if jobs.read_state(folder).status != FAILED:
            traceback.print_exc()
            write_state(folder, State(FAILED, in_words(error, folder)))
    return int(jobs.read_state(folder).status != DONE)


def attend(folder: Path) -> None:
    """Do the work, and keep in one sentence how it ended. Raises what the work raises."""
    if jobs.read_state(folder).status == RUNNING:
        Journal(folder).tell("note", text="A machine was lost. Going on from the last epoch.")
    write_state(folder, State(RUNNING))
    reserve = folder / jobs.RESERVE
    try:
        reserve.write_bytes(os.urandom(RESERVED_BYTES))
        work(folder)
    except Exception as error:
        reserve.unlink(missing_ok=True)  # on a full disk there is room now to say so
        write_state(folder, State(FAILED, in_words(error, folder)))
        with suppress(OSError):
            traceback.print_exc()  # to the run's log
        raise
    finally:
        reserve.unlink(missing_ok=True)
    write_state(folder, State(DONE, "Stopped early." if (folder / jobs.STOP).exists() else ""))


def work(folder: Path) -> None:
    from medfusion import library  # PyTorch is loaded once it is this run's turn
    from medfusion.evaluate import measure
    from training import compare, loop, record
    from training.config import STARTS
    from training.run import make
    from training.watch import Watch

    memory.keep_memory()
    run = jobs.find(folder.name)
    plan = run.plan
    watch = Watch(folder, folder / jobs.STOP, loggers=(record.logger(run.id, plan),))
    resume = (folder / "checkpoints" / f"{loop.LAST}.ckpt").exists()
    command = f"python -m training run --config {jobs.PLAN} --data {run.source.name} --out {plan.model_id}"
    made = make(plan, run.source, folder, folder / "model", command, resume, watch)
    parent = None if plan.settings.start in STARTS else library.load(plan.settings.start)
    card = made.model.card
    if parent and (set(parent.card.classes), parent.card.task) != (set(card.classes), card.task):
        parent = None  # it gives other answers: there is nothing to compare
    own = made.test or made.val
    others = measure(parent, own.data) if parent else None
    compare.write(folder, made.model, parent, own, others, "test" if made.test else "val")


def in_words(error: Exception, folder: Path) -> str:
    """One sentence with cause and next step; the log has the rest."""
    if isinstance(error, (MedFusionError, FileNotFoundError)) and is_set_gone(folder):
        return "The labelled set is not there any more. Have it put back and go on, or bring it again for a new run."
    if isinstance(error, MedFusionError):
        return str(error)
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    if full or shutil.disk_usage(folder).free < LITTLE_BYTES:
        return "The disk is full. Free some space, then go on from the last epoch."
    if memory.ran_out(error):
        return "Memory ran out. Close other programs or lower the batch size, then go on from the last epoch."
    if isinstance(error, FileNotFoundError):
        return "A file that the run needs is not there any more. Upload the set again and start a new run."
    return f"The run ended by a fault of the program ({type(error).__name__}). Its log tells more; try to go on."


def is_set_gone(folder: Path) -> bool:
    with suppress(MedFusionError):
        return not jobs.find(folder.name).source.exists()
    return False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
