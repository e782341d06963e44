"""A small search for settings with Optuna, before the training proper: judged on val, the test part is not used.

The settings as given are the first trial, so the search never ends with something worse on val. Trials that fall behind
the median of the others are cut off. Trials are kept in SQLite beside the run, so that a killed search goes on.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import optuna

from medfusion.errors import ConfigError
from medfusion.types import Task
from training import loop
from training.balance import BALANCES
from training.config import TrainConfig
from training.datasets import Pictures
from training.watch import Watch

DATABASE = "search.db"
SPREAD = 4.0  # learning rates from a quarter to four times the given one
FROZEN = 4  # stages at most
ENDED = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)


def search(
    config: TrainConfig,
    train: Pictures,
    val: Pictures,
    classes: tuple[str, ...],
    task: Task,
    folder: Path,
    watch: Watch | None = None,
) -> tuple[TrainConfig, dict[str, object]]:
    """The settings of the best trial, with what was found for the card. A stopped run takes the best so far."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / DATABASE}",
        study_name="settings",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=1),
        load_if_exists=True,
    )
    seed = config.seed + len(study.trials)  # a search that goes on does not draw the same again
    study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=4)
    known = study.get_trials(deepcopy=False, states=(*ENDED, optuna.trial.TrialState.WAITING))
    if not any(is_given(trial, config) for trial in known):
        study.enqueue_trial(given(config))

    def objective(trial: optuna.Trial) -> float:
        if watch:
            watch.journal.tell("phase", text=f"Trial {len(ended(study)) + 1} of {config.trials}")
        tried = replace(config, **suggested(trial, config), epochs=config.trial_epochs, patience=config.trial_epochs)
        network, trained = loop.started(tried, classes, task)
        part = folder / "trials" / str(trial.number)
        part.mkdir(parents=True, exist_ok=True)
        judge = Judge(part, trial, watch)
        try:
            loop.fit(network, train, val, task, tried, part, trained=trained, watch=judge)
        except ConfigError as error:  # its loss is no number, or memory ran out: others may do
            raise optuna.TrialPruned from error
        finally:
            shutil.rmtree(part)
        if judge.pruned:
            raise optuna.TrialPruned
        return judge.least

    def after(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if watch:
            cut = trial.state == optuna.trial.TrialState.PRUNED
            watch.journal.tell("trial", number=trial.number, val_loss=trial.value, cut_off=cut, settings=trial.params)
            if watch.stop.exists():
                study.stop()

    left = config.trials - len(ended(study))
    if left > 0 and not (watch and watch.stop.exists()):
        study.optimize(objective, left, timeout=60 * config.minutes or None, callbacks=[after])
    tried = ended(study)
    whole = [trial for trial in tried if trial.state == optuna.trial.TrialState.COMPLETE]
    if not whole:
        return config, {"trials": len(tried), "settings": given(config)}
    best = study.best_trial
    found: dict[str, object] = {"trials": len(tried), "settings": best.params, "val_loss": best.value}
    found["val_loss_as_given"] = next((one.value for one in tried if is_given(one, config)), None)
    if watch:
        named = ", ".join(f"{name.replace('_', ' ')} {words(value)}" for name, value in best.params.items())
        watch.journal.tell("note", text=f"The search chose, of {len(tried)} trials: {named}.")
    return replace(config, **best.params), found


def ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that came to a value or were cut off; one that a killed process left behind does not count."""
    return study.get_trials(deepcopy=False, states=ENDED)


def is_given(trial: optuna.trial.FrozenTrial, config: TrainConfig) -> bool:
    """Whether a trial is of the settings as they were given, run or still to be run."""
    return given(config) in (trial.params, trial.system_attrs.get("fixed_params"))


def given(config: TrainConfig) -> dict[str, Any]:
    """The settings that are searched, as they are."""
    names = ["learning_rate", "label_smoothing", "balance"]
    if config.start != "scratch":
        names += ["pretrained_scale", "frozen_stages"]
    return {name: asdict(config)[name] for name in names}


def suggested(trial: optuna.Trial, config: TrainConfig) -> dict[str, Any]:
    found: dict[str, Any] = {
        "learning_rate": trial.suggest_float(
            "learning_rate", config.learning_rate / SPREAD, min(0.5, config.learning_rate * SPREAD), log=True
        ),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, max(0.15, config.label_smoothing)),
        "balance": trial.suggest_categorical("balance", list(BALANCES)),
    }
    if config.start != "scratch":
        top = max(1.0, config.pretrained_scale)
        found["pretrained_scale"] = trial.suggest_float("pretrained_scale", min(0.1, config.pretrained_scale), top)
        found["frozen_stages"] = trial.suggest_int("frozen_stages", 0, max(FROZEN, config.frozen_stages))
    return found


def words(value: object) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value).replace("_", " ")


class Judge(Watch):
    """Tells Optuna the loss on val after each epoch, and ends what it cuts off."""

    def __init__(self, folder: Path, trial: optuna.Trial, run: Watch | None) -> None:
        super().__init__(folder, run.stop if run else folder / "stop")
        self.trial, self.least, self.pruned = trial, float(np.inf), False

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        super().on_train_epoch_end(trainer, module)
        loss = float(trainer.callback_metrics["val_loss"])
        self.least = min(self.least, loss)
        self.trial.report(loss, trainer.current_epoch)
        if self.trial.should_prune():
            self.pruned = trainer.should_stop = True
