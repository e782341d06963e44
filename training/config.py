"""Settings of a training run. They check themselves before any work starts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from medfusion import library
from medfusion.errors import ConfigError, ModelNotFound
from medfusion.network import SIZES, STAGES, STRIDE
from training.balance import BALANCES

STARTS = ("imagenet", "scratch")
MOST = 2**31 - 1  # of what is only bounded below
MOST_MINUTES = 1_000_000
FOLDS = (2, 10)
MOST_TRIALS = 200
BATCHES = (8, 32)  # that are found by themselves, the smallest and the largest,
STEPS = 8  # so that an epoch has so many steps: with fewer, small sets would hardly learn
SHORTER = 3  # trials of a search train for a third of the epochs,
FEWEST_EPOCHS = 2  # but for so many at least
CALIBRATIONS = {
    "offsets": "one temperature, and an offset for each class if the validation cases ask for them",
    "temperature": "one temperature: for pictures from elsewhere, whose offsets would be others",
}
PRECISIONS = ("auto", "32", "bf16", "16")


@dataclass(frozen=True)
class TrainConfig:
    size: str = "tiny"
    start: str = "imagenet"  # or "scratch", or a model by id or folder; small sets gain 7 to 12 points over scratch
    epochs: int = 20
    finish_epochs: int = 0  # the last ones with crops of full size; on chest X-rays they made the loss on val worse
    train_px: int = 192  # side of the random crops: things look as large in them as in the whole (Touvron 2019)
    side_px: int = 224  # side of the input that the model is made for
    batch_size: int = 0  # 0 is found from the number of cases; where memory runs out it is halved and added up
    learning_rate: float = 6e-4
    pretrained_scale: float = 0.5  # learning rate of ImageNet layers, relative
    frozen_stages: int = 2  # stem and first stages stay as ImageNet made them: edges are edges, and steps are cheaper
    weight_decay: float = 0.05
    label_smoothing: float = 0.05
    balance: str = "sampler"  # see training/balance.py; measured in tests/bench/models/results/imbalance.csv
    class_weighting: float = 0.5  # how far: 0 treats all cases alike, 1 all classes
    calibration: str = "offsets"  # or "temperature": see CALIBRATIONS
    average_decay: float = 0.995  # of the weight average, a step
    warmup: float = 0.06  # part of all steps
    patience: int = 6  # epochs without a better validation loss
    sanity_scans: int = 8  # of val, whose maps are tested; 0: maps are not tested
    sanity_epochs: int = 3  # on shuffled labels, to see whether maps change with them; 0: none
    augmentation: str = "general"
    precision: str = "auto"
    seed: int = 0
    seeds: int = 1  # networks trained from the same start, each with the next seed; their average is the model
    workers: int = 1
    device: str = "auto"
    minutes: float = 0.0  # time budget, shared evenly by search, folds and the training itself; 0: none
    folds: int = 0  # of a cross-validation before the training itself; 0: none
    trials: int = 0  # of a search for settings before all training; 0: none

    def __post_init__(self) -> None:
        from training.augment import RECIPES

        _choose("size", self.size, tuple(SIZES))
        if self.start not in STARTS and not _is_model(self.start):
            raise ConfigError(f"start is {self.start!r}. Choose {', '.join(STARTS)}, or a model by id or folder.")
        _choose("balance", self.balance, tuple(BALANCES))
        _choose("calibration", self.calibration, tuple(CALIBRATIONS))
        _choose("precision", self.precision, PRECISIONS)
        _choose("augmentation", self.augmentation, tuple(RECIPES))
        for name in ("train_px", "side_px"):
            side = getattr(self, name)
            if side < STRIDE or side % STRIDE:
                raise ConfigError(f"{name} is {side}. Choose a multiple of {STRIDE}.")
        for name in ("epochs", "patience", "seeds"):
            if not 1 <= getattr(self, name) <= MOST:
                raise ConfigError(f"{name} is {getattr(self, name)}. Choose 1 to {MOST:,}.")
        if not 0 <= self.frozen_stages <= len(STAGES):
            raise ConfigError(f"frozen_stages is {self.frozen_stages}. Choose 0 to {len(STAGES)}.")
        if self.frozen_stages and self.start == "scratch":
            raise ConfigError("Frozen stages need trained weights. Set frozen_stages to 0 when starting from scratch.")
        if not 0 < self.learning_rate < 1:
            raise ConfigError(f"learning_rate is {self.learning_rate}. Choose a value between 0 and 1.")
        if not 0 <= self.minutes <= MOST_MINUTES:
            raise ConfigError(f"minutes is {self.minutes}. Choose 0 for no limit, or up to {MOST_MINUTES:,}.")
        if self.folds and not FOLDS[0] <= self.folds <= FOLDS[1]:
            raise ConfigError(f"folds is {self.folds}. Choose 0 for none, or {FOLDS[0]} to {FOLDS[1]}.")
        if not 0 <= self.trials <= MOST_TRIALS:
            raise ConfigError(f"trials is {self.trials}. Choose 0 for none, or up to {MOST_TRIALS}.")
        for name in ("class_weighting", "label_smoothing", "average_decay", "warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}. Choose a value from 0 to 1.")
        for name in (
            "batch_size",
            "weight_decay",
            "pretrained_scale",
            "finish_epochs",
            "sanity_scans",
            "sanity_epochs",
            "seed",
        ):
            if not 0 <= getattr(self, name) <= MOST:
                raise ConfigError(f"{name} is {getattr(self, name)}. Choose 0 to {MOST:,}.")

    def settled(self, cases: int) -> TrainConfig:
        """With the batch size that is found for so many training cases, where none is given."""
        if self.batch_size:
            return self
        found = BATCHES[1]
        while found > BATCHES[0] and cases < STEPS * found:
            found //= 2
        return replace(self, batch_size=found)

    @property
    def trial_epochs(self) -> int:
        """Of each trial of a search for settings."""
        return max(FEWEST_EPOCHS, self.epochs // SHORTER)


def _is_model(start: str) -> bool:
    try:
        library.find(start)
    except ModelNotFound:
        return False
    return True


def _choose(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{name} is {value!r}. Choose one of: {', '.join(allowed)}.")
