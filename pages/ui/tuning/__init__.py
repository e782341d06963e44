"""The steps of the Fine-tune page, in order."""

from collections.abc import Callable

from pages.ui.tuning import check, data, promotion, result, runs, settings, steps, training

STEPS: dict[str, Callable[[], None]] = {
    steps.DATA: data.show,
    steps.CHECK: check.show,
    steps.SETTINGS: settings.show,
    steps.TRAIN: training.show,
    steps.RESULT: result.show,
    steps.PROMOTE: promotion.show,
}

__all__ = ["STEPS", "runs", "steps"]
