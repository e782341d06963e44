"""`python -m training COMMAND`. Research use only."""

from __future__ import annotations

import argparse
import sys

from medfusion.errors import MedFusionError
from training import calibrate, foundation, preflight, public_sets, reference, run, sanity
from training.memory import keep_memory, ran_out


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m training", description="Train MedFusionNet. Research use only.")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("check", help="see whether a labelled set is fit to train on")
    preflight.add_arguments(command)
    command.set_defaults(act=preflight.run)
    command = commands.add_parser("run", help="train on a labelled zip or folder")
    run.add_arguments(command)
    command.set_defaults(act=run.run)
    command = commands.add_parser("foundation", help="train one encoder jointly on several labelled sets")
    foundation.add_arguments(command)
    command.set_defaults(act=foundation.run)
    command = commands.add_parser("calibrate", help="fit temperature and thresholds of a model anew, weights untouched")
    calibrate.add_arguments(command)
    command.set_defaults(act=calibrate.run)
    command = commands.add_parser("reference", help="say which pictures a model knows, so that others are refused")
    reference.add_arguments(command)
    command.set_defaults(act=reference.run)
    command = commands.add_parser("sanity", help="see whether a model's maps depend on what it has learned")
    sanity.add_arguments(command)
    command.set_defaults(act=sanity.run)
    command = commands.add_parser("medmnist", help="bring a public set of MedMNIST as a labelled zip")
    public_sets.add_arguments(command)
    command.set_defaults(act=public_sets.run)
    options = parser.parse_args(arguments)
    keep_memory()
    try:
        said = options.act(options)
    except MedFusionError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        sys.stderr.write("error: Memory ran out. Close other programs and try again; a run goes on with --resume.\n")
        return 2
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
