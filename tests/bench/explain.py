"""Explanations by a shipped model at 224 px: LIME against the package's defaults, Grad-CAM against a forward pass."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import onnxruntime
import torch
from captum.attr import IntegratedGradients, Occlusion
from lime.lime_image import LimeImageExplainer
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, ScoreCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from medfusion import library
from medfusion.explain import explain
from medfusion.export import to_onnx
from medfusion.imaging import display
from medfusion.inference import class_logits, score, to_probabilities
from medfusion.library import Model
from medfusion.preprocess import squash, to_batch
from medfusion.samples import read_sample
from tests.bench.table import Row, compare_both, compare_s, elapsed_s, median_s, peak_mib

SAMPLES = {"chest-xray": "synthetic-chest", "lung-histology": "histology", "retina": "fundus"}  # by model
MODEL, SAMPLE = next(iter(SAMPLES.items()))
OUTPUT = 0  # a binary network has one


def explanations() -> list[Row]:
    model, scan = library.load(MODEL, "cpu"), read_sample(SAMPLE)
    picture = squash(display(scan), model.card.input)
    eager = eager_score(model)
    score(model, picture)  # imports and first-time set-up are no part of it
    rows = [
        *(row for id, sample in SAMPLES.items() for row in lime(library.load(id, "cpu"), sample)),
        Row(
            "Grad-CAM, against one forward pass",
            median_s(lambda: explain(model, scan, 1, "gradcam"), repeats=15),
            median_s(lambda: eager(picture), repeats=15),
        ),
    ]
    if torch.cuda.is_available():
        rows.append(lime_on_the_card(model))
    others = {"PyTorch": eager, "ONNX Runtime": onnx_score(model)}
    for batch in (1, 32):
        pictures = np.stack([picture] * batch)
        for name, other in others.items():
            ours = median_s(lambda pictures=pictures: score(model, pictures), repeats=9)
            theirs = median_s(lambda pictures=pictures, other=other: other(pictures), repeats=9)
            rows.append(Row(f"answers to {batch}, against {name}", ours, theirs))
    return rows


def lime(model: Model, sample: str) -> list[Row]:
    """Against the package as it is used without a thought, by the clock and in processor seconds."""
    scan = read_sample(sample)
    picture = squash(display(scan), model.card.input)
    eager = eager_score(model)
    samples = explain(model, scan, 1, "lime").samples
    clock, cores = compare_both(lambda: explain(model, scan, 1, "lime"), lambda: packaged_lime(eager, picture))
    return [
        Row(f"LIME, {model.card.id}, {samples} samples, the package's 1000", *clock),
        Row("the same in seconds of all cores", *cores),
    ]


def lime_on_the_card(model: Model) -> Row:
    """The same on the GPU, the package's own call on the same one."""
    on_card = Model(model.card, deepcopy(model.network).cuda(), torch.device("cuda"))
    scan = read_sample(SAMPLE)
    picture = squash(display(scan), model.card.input)
    eager = eager_score(on_card)
    explain(on_card, scan, 1, "lime", settings={"samples": 256})
    ours = median_s(lambda: explain(on_card, scan, 1, "lime"), repeats=5)
    name = f"LIME on {torch.cuda.get_device_name()}, against the package's"
    return Row(name, ours, elapsed_s(lambda: packaged_lime(eager, picture)))


def methods() -> list[Row]:
    """Every method against its package's own call on the same network, by PyTorch, as its documentation has it."""
    model, scan = library.load(MODEL, "cpu"), read_sample(SAMPLE)
    picture = squash(display(scan), model.card.input)
    rows = []
    for method, theirs in packaged(model, picture).items():
        explain(model, scan, 1, method)  # imports and first-time set-up are no part of it
        ours_mib, theirs_mib = peak_mib(lambda method=method: explain(model, scan, 1, method)), peak_mib(theirs)
        seconds = compare_s(lambda method=method: explain(model, scan, 1, method), theirs)
        rows.append(Row(f"{method}, against its package", *seconds, ours_mib, theirs_mib))
    return rows


def packaged(model: Model, picture: np.ndarray) -> dict[str, Callable[[], object]]:
    """The packages' own calls, with their defaults. Attention rollout has no package that knows this network."""
    batch, network = to_batch(picture, model.card.input), model.network
    eager = eager_score(model)

    def cam(kind: type[BaseCAM], layer: nn.Module) -> Callable[[], object]:
        return lambda: kind(network, [layer])(batch.clone().requires_grad_(), [ClassifierOutputTarget(OUTPUT)])

    def covered() -> object:
        return Occlusion(network).attribute(batch, (3, 32, 32), (3, 16, 16), target=OUTPUT)

    return {
        "gradcam": cam(GradCAM, network.deep),
        "gradcam++": cam(GradCAMPlusPlus, network.deep),
        "hirescam": cam(HiResCAM, network.stages),
        "layercam": cam(LayerCAM, network.stages),
        "scorecam": cam(ScoreCAM, network.stages),
        "lime": lambda: packaged_lime(eager, picture),
        "occlusion": covered,
        "integrated_gradients": lambda: IntegratedGradients(network).attribute(batch.clone(), target=OUTPUT),
    }


def eager_score(model: Model) -> Callable[[np.ndarray], np.ndarray]:
    """The same answers by PyTorch alone."""

    @torch.inference_mode()
    def scores(pictures: np.ndarray) -> np.ndarray:
        logits = model.network(to_batch(pictures, model.card.input).to(model.device))
        return to_probabilities(class_logits(logits, model.card.task), model.card.task).cpu().numpy()

    return scores


def onnx_score(model: Model) -> Callable[[np.ndarray], np.ndarray]:
    """The same answers by the other backend that OpenVINO was chosen over."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(to_onnx(model.card.id).content, options, ["CPUExecutionProvider"])
    return lambda pictures: session.run(None, {"pictures": pictures})[0]


def packaged_lime(eager: Callable[[np.ndarray], np.ndarray], picture: np.ndarray) -> None:
    """As the package is used without a thought: quickshift, 1000 samples, batches of 10."""
    LimeImageExplainer(random_state=0).explain_instance(picture, eager, labels=(1,))
