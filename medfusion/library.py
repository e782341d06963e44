"""Find, verify and load models. A model is a folder with card.json and weights.safetensors; code is never loaded.

Shipped models lie in models/; a site's own in the folder that `places` names. Of two with one id the site's
counts: it was promoted in place of the shipped one.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from textwrap import shorten

import torch
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as format_safetensors
from torch import Tensor

from medfusion import places
from medfusion.backend import FUSED, Backend
from medfusion.errors import ModelDamaged, ModelNotFound
from medfusion.network import SIZES, STRIDE, Features, MedFusionNet, build
from medfusion.types import InputSpec, ModelCard, OperatingPoint

SHIPPED = places.PROJECT / "models"
CARD = "card.json"
WEIGHTS = "weights.safetensors"
ID = re.compile(r"\w[\w.-]*")  # it becomes part of paths and addresses
SCHEMA = Draft202012Validator(json.loads(Path(__file__).with_name("card.schema.json").read_text(encoding="utf-8")))
MAX_CARD_BYTES, MAX_WEIGHTS_BYTES = 2**24, 2**28
MAX_WORDS = 200  # of what is wrong in a card


@dataclass(frozen=True, eq=False)
class Model:
    """A network in evaluation mode, frozen, with its card. Sessions share it: nobody changes it."""

    card: ModelCard
    network: MedFusionNet
    device: torch.device
    backend: Backend = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.network.eval().requires_grad_(False)
        object.__setattr__(self, "backend", Backend(self.network, self.card.input, self.device))

    @torch.inference_mode()
    def logits(self, batch: Tensor, many: bool = False) -> Tensor:
        """(B, 3, h, w) zero-centred, of the card's size and on the model's device, to (B, outputs) float32.

        many: for many answers of which none is shown by itself, in half precision where that is quicker.
        """
        if many and (halves := self.backend.halves()):
            early, late = halves
            return late(early(batch))
        if not many and (compiled := self.backend.get()):
            return compiled(batch)
        with torch.autocast(self.device.type, torch.float16, enabled=many and self.device.type == "cuda"):
            return self.network(batch.contiguous(memory_format=torch.channels_last)).float()

    @torch.inference_mode()
    def fused(self, batch: Tensor) -> Tensor:
        """What the head decides by, (B, D + 192) float32, of the same batches as `logits`."""
        compiled = self.backend.get() if len(batch) > 1 else None  # one picture is not worth a second of compiling
        if compiled:
            return compiled(batch, FUSED)
        return self.network.fused(self.network.maps(self.network.extract(batch))).float()

    @torch.no_grad()
    def features(self, picture: Tensor) -> Features:
        """The network's maps of one picture (1, 3, h, w), without a graph; explanations start from them."""
        compiled = self.backend.get()
        if compiled:
            return compiled.features(picture)
        return self.network.maps(self.network.extract(picture))


def folders() -> list[Path]:
    """Where models are looked for, in order."""
    return [places.site_models(), SHIPPED]


def list_cards() -> list[ModelCard]:
    """All usable cards by id. Of two with the same id the first found counts, as in `find`."""
    cards: dict[str, ModelCard] = {}
    for folder in model_folders():
        with suppress(ModelDamaged):  # `problems` tells; the other models stay usable
            card = read_card(folder)
            cards.setdefault(card.id, card)
    return sorted(cards.values(), key=lambda card: card.id)


def problems() -> list[str]:
    """One sentence for each model whose card cannot be used."""
    found = []
    for folder in model_folders():
        try:
            read_card(folder)
        except ModelDamaged as error:
            found.append(str(error))
    return found


def model_folders() -> list[Path]:
    return [path.parent for folder in folders() for path in sorted(folder.glob(f"[!.]*/{CARD}"))]


def find(model_id: str) -> Path:
    """The folder of a model, by id or as a path to the folder itself."""
    if "/" in model_id and (Path(model_id) / CARD).is_file():
        return Path(model_id)
    for path in (path for folder in folders() for path in folder.glob(f"*/{CARD}")):
        if path.parent.name == model_id:
            return path.parent
    known = ", ".join(card.id for card in list_cards()) or "none"
    raise ModelNotFound(f"There is no model {model_id!r}. Available: {known}.")


def read_card(folder: Path) -> ModelCard:
    """Read and check card.json. Raises ModelDamaged when it is not as SCHEMA has it, or contradicts itself."""
    try:
        card = parse_card(read_bounded(folder / CARD, MAX_CARD_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelDamaged(f"The card of {folder.name!r} cannot be read ({error}). Install the model again.") from error
    if not is_consistent(card):
        raise ModelDamaged(f"The card of model {folder.name!r} contradicts itself. Install the model again.")
    return card


@lru_cache(maxsize=32)  # pages list all cards at each click, and SCHEMA takes milliseconds for one
def parse_card(content: bytes) -> ModelCard:
    """A card as SCHEMA has it, not yet known to be consistent. Raises ValueError with the place, or RecursionError."""
    raw = json.loads(content.decode("utf-8"), parse_int=whole)
    if wrong := best_match(SCHEMA.iter_errors(raw)):
        where = ".".join(map(str, wrong.absolute_path)) or "as a whole"
        raise ValueError(f"{where}: {shorten(wrong.message, MAX_WORDS)}")
    raw = {key: value for key, value in raw.items() if key in {f.name for f in fields(ModelCard)}}
    raw["input"] = InputSpec(**raw["input"])
    point = raw["operating_point"]
    limits, promised = tuple(point["thresholds"]), point.get("sensitivity", 0.0)
    raw["operating_point"] = OperatingPoint(limits, point["rule"], promised)
    for key in ("classes", "dicom_modalities", "limits", "set_thresholds", "class_offsets"):
        raw[key] = tuple(raw.get(key, ()))
    return ModelCard(**raw)


def whole(digits: str) -> int | float:
    """An integer of JSON; one that no card has becomes a float, which every format and comparison takes."""
    return int(digits) if len(digits) < 19 else float(digits)


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """Raises OSError, or ModelDamaged where a file is larger than one of its kind can be."""
    if path.stat().st_size > most_bytes:
        raise ModelDamaged(f"{path.name} of {path.parent.name!r} is too large. Install the model again.")
    return path.read_bytes()


def is_consistent(card: ModelCard) -> bool:
    """Whether the fields of a card, by themselves as SCHEMA has them, agree with each other and with the network."""
    figures = (
        card.temperature,
        *card.operating_point.thresholds,
        card.operating_point.sensitivity,
        *card.set_thresholds,
        *card.class_offsets,
        card.input.mean,
        card.input.std,
    )
    return (
        ID.fullmatch(card.id) is not None
        and all(map(math.isfinite, figures))
        and card.size in SIZES
        and (card.task != "binary" or len(card.classes) == 2)
        and len(card.operating_point.thresholds) == len(card.classes)
        and len(card.set_thresholds) in (0, len(card.classes))
        and len(card.class_offsets) in (0, len(card.classes))
        and isinstance(card.input.height_px, int)  # JSON Schema takes 64.0 for an integer, too
        and isinstance(card.input.width_px, int)
        and card.input.height_px % STRIDE == card.input.width_px % STRIDE == 0
    )


def outputs_of(card: ModelCard) -> int:
    """How many logits the network of this card returns."""
    return 1 if card.task == "binary" else len(card.classes)


def load(model_id: str, device: str | torch.device | None = None) -> Model:
    """Load a model after checking its weights against the card's SHA-256.

    device: where to run; by default the GPU where there is one.
    """
    folder = find(model_id)
    card = read_card(folder)
    try:
        data = read_bounded(folder / WEIGHTS, MAX_WEIGHTS_BYTES)
    except OSError as error:
        raise ModelDamaged(f"The weights of model {card.id!r} are missing. Install the model again.") from error
    if hashlib.sha256(data).hexdigest() != card.weights_sha256:
        raise ModelDamaged(f"The weights of model {card.id!r} are not those of its card. Install the model again.")
    network = build(card.size, outputs_of(card))
    try:
        network.load_state_dict(parse_safetensors(data))  # copies fp16 into the network's float32
    except (SafetensorError, RuntimeError) as error:
        raise ModelDamaged(f"The weights of {card.id!r} do not fit its network. Install the model again.") from error
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise ModelDamaged(f"The weights of {card.id!r} hold values that are no numbers. Install the model again.")
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Model(card, network.to(target).to(memory_format=torch.channels_last), target)


def stored(network: MedFusionNet) -> dict[str, Tensor]:
    """The weights as save writes them: in half precision, without counters of batches."""
    return {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def save(folder: Path, card: ModelCard, network: MedFusionNet) -> ModelCard:
    """Write weights as fp16 safetensors, then the card with their SHA-256. Returns the card as written."""
    folder.mkdir(parents=True, exist_ok=True)
    data = format_safetensors(stored(network))
    (folder / WEIGHTS).write_bytes(data)
    raw = asdict(card) | {"weights_sha256": hashlib.sha256(data).hexdigest()}
    (folder / CARD).write_text(json.dumps(raw, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return read_card(folder)
