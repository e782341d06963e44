"""Why the model answered: one contract, one file for each method. All start from the same picture and target class."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from functools import partial
from typing import Any

import numpy as np
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM

from medfusion.errors import ExplanationError
from medfusion.explain import cam, integrated, lime, occlusion, rollout, scorecam
from medfusion.explain.contract import Attribution, Explainer
from medfusion.explain.heatmap import positive_part, signed_part, to_scan_grid
from medfusion.explain.sight import shift_of
from medfusion.explain.words import describe
from medfusion.imaging import display
from medfusion.library import Model
from medfusion.preprocess import squash
from medfusion.types import Explanation, ModelCard, Scan

ALIKE = 0.5  # mean rank correlation, without its sign, from which two models' maps are called the same

__all__ = ["EXPLAINERS", "describe", "explain", "make_ready"]

EXPLAINERS: dict[str, Explainer] = {
    "gradcam": Explainer(
        "Grad-CAM",
        "Regions whose features push the score of the class up, seen from inside the network; coarse.",
        "Its cells are up to a seventh of the picture wide: a small finding looks large, two near ones look like one.",
        partial(cam.attribute, GradCAM),
        cam.DeepCamSettings,
    ),
    "lime": Explainer(
        "LIME",
        "Patches that raise or lower the odds of the class when they are shown or hidden; seen from outside.",
        "Hidden patches make pictures that no scanner makes; another seed may turn faint evidence round.",
        lime.attribute,
        lime.LimeSettings,
        draws_random_numbers=True,
        is_slow=True,
    ),
    "gradcam++": Explainer(
        "Grad-CAM++",
        "Like Grad-CAM, but several places that look alike count alike.",
        "It leaves out what speaks against the class, and with one network missed two of three planted places.",
        partial(cam.attribute, GradCAMPlusPlus),
        cam.DeepCamSettings,
        tells_against=False,
    ),
    "hirescam": Explainer(
        "HiResCAM",
        "Like Grad-CAM, but each place counts by its own effect on the score, not by the average.",
        "A place can have a steep effect because it is odd, not because it matters: compare it with LIME or occlusion.",
        partial(cam.attribute, HiResCAM),
        cam.CamSettings,
    ),
    "layercam": Explainer(
        "LayerCAM",
        "Like HiResCAM, and only what pushes the score up counts.",
        "Without what speaks against the class, faint and balanced places look as meaningful as decisive ones.",
        partial(cam.attribute, LayerCAM),
        cam.CamSettings,
        tells_against=False,
    ),
    "scorecam": Explainer(
        "Score-CAM",
        "What each feature's places are worth to the class when nothing else is shown; coarse.",
        "A picture with most of it hidden is unlike any scan, and the model was never asked about such.",
        scorecam.attribute,
        cam.CamSettings,
        is_slow=True,
    ),
    "rollout": Explainer(
        "Attention rollout",
        "Where the Transformer's attention goes, the same for every class: what was looked at, not what spoke for it.",
        "It sees only the Transformer: attention is not use, and it cannot tell one class from another.",
        rollout.attribute,
        rollout.RolloutSettings,
        knows_class=False,
        tells_against=False,
    ),
    "occlusion": Explainer(
        "Occlusion",
        "By how much the odds of the class fall when a square of the picture is covered.",
        "Findings larger than the square, or present twice, lose little when one part is covered.",
        occlusion.attribute,
        occlusion.OcclusionSettings,
        is_slow=True,
    ),
    "integrated_gradients": Explainer(
        "Integrated gradients",
        "What each pixel adds to the score on the way from a black picture to this one; fine-grained and noisy.",
        "Edges dominate, black places can never count, and single pixels mean nothing: look at clusters.",
        integrated.attribute,
        integrated.IntegratedSettings,
        is_slow=True,
    ),
}


def explain(
    model: Model,
    scan: Scan,
    target_index: int,
    method: str,
    frame: int = 0,
    seed: int = 0,
    settings: Mapping[str, object] | None = None,
    progress: Callable[[float], None] | None = None,
    partial_map: Callable[[Explanation], None] | None = None,
    picture: np.ndarray | None = None,
) -> Explanation:
    """The map of one method for one class of one frame, on the grid of that frame.

    settings: overrides of the method's own. progress: called with the part done, 0..1; may raise Cancelled.
    partial_map: called with the map so far, now and then, by methods that have one. picture: what the model saw of the
    frame, (h, w, 3) uint8 of its size, where the frame itself is not at hand. Raises ExplanationError on an
    unknown method, class or setting, where the model gives no numbers, and on a method that is refused for it.
    """
    started = time.perf_counter()
    explainer = _find(method)
    refused = refusal(model.card, method)
    if refused:
        raise ExplanationError(refused)
    if not 0 <= target_index < len(model.card.classes):
        raise ExplanationError(f"There is no class {target_index}. Choose 0 to {len(model.card.classes) - 1}.")
    chosen = _settings(explainer, settings or {})
    seen = squash(display(scan, frame), model.card.input) if picture is None else picture

    def made(found: Attribution) -> Explanation:
        evidence = found.raw if found.evidence is None else found.evidence
        size = scan.height_px, scan.width_px
        on_scan = to_scan_grid(evidence, *size, found.resampling, found.shift)
        closer = None if found.closer is None else to_scan_grid(found.closer, *size)
        return Explanation(
            method=method,
            target_index=target_index,
            target_name=model.card.classes[target_index],
            heatmap=positive_part(on_scan, closer),
            signed=signed_part(on_scan),
            raw=found.raw,
            evidence=evidence,
            model_id=model.card.id,
            model_version=model.card.version,
            scan_sha256=scan.sha256,
            frame=frame,
            seed=seed if explainer.draws_random_numbers else None,
            settings=asdict(chosen),
            elapsed_s=time.perf_counter() - started,
            fit=found.fit,
            samples=found.samples,
            knows_class=explainer.knows_class,
        )

    def report(done: float, so_far: Attribution | None = None) -> None:
        if progress:
            progress(done)
        if partial_map and so_far:
            partial_map(made(so_far))

    return made(explainer.attribute(model, seen, target_index, seed, chosen, report))


def make_ready(model: Model) -> None:
    """What single answers and class activation maps need once for each network: about two seconds on a CPU."""
    model.backend.get()
    shift_of(model)


def refusal(card: ModelCard, method: str) -> str | None:
    """Why a method must not be shown for a model, as its card tells (see sanity.py); None where nothing is known."""
    sanity: Any = card.metrics.get("sanity", {})
    steps: Mapping[str, float] = sanity.get("weights", {}).get(method, {})
    alike = list(steps.values())[-1] if steps else 0.0
    if alike < ALIKE:
        return None
    return (
        f"{EXPLAINERS[method].title} shows the picture, not this model: with all weights randomised its maps stay "
        f"alike (rank correlation {alike:.2f}). Choose another method."
    )


def _find(method: str) -> Explainer:
    if method not in EXPLAINERS:
        raise ExplanationError(f"There is no method {method!r}. Choose one of: {', '.join(EXPLAINERS)}.")
    return EXPLAINERS[method]


def _settings(explainer: Explainer, given: Mapping[str, object]):  # type: ignore[no-untyped-def]  # each has its own
    allowed = [field.name for field in fields(explainer.settings)]
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise ExplanationError(
            f"{explainer.title} has no setting {unknown[0]!r}. It has: {', '.join(allowed) or 'none'}."
        )
    return explainer.settings(**given)
