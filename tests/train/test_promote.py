"""From a finished run to the model in use: only for good reasons, in one step, and back again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from medfusion import library, places
from medfusion.errors import ConfigError, MedFusionError, RecordsError
from medfusion.network import build
from medfusion.records import audit
from medfusion.types import InputSpec, ModelCard, OperatingPoint
from training import jobs, promote, record
from training.config import TrainConfig
from training.finish import About
from training.plan import Plan
from training.promote import PromotionRefused

SANE = {"scans": 8, "weights": {method: {"head": 0.9, "stem": 0.1} for method in ("gradcam", "lime")}}
REASON = "Our own scanner; see protocol 12."
BETTER = {
    "child": {"auroc": {"value": 0.9, "low": 0.8, "high": 0.95}},
    "verdict": "better",
    "parent_id": "sides",
    "parent_version": "2020.01.01",
    "auroc_gain": {"value": 0.05, "low": 0.01, "high": 0.1},
    "accuracy_gain": {"value": 0.05, "low": -0.01, "high": 0.1},
}
ALONE = {"child": BETTER["child"], "verdict": "alone"}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    """One MLflow file for most tests: a fresh one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, ledger):
    """An installation of its own that ships one model, "sides"."""
    monkeypatch.setenv("MEDFUSION_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MEDFUSION_MODELS", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ledger)
    monkeypatch.setattr(library, "SHIPPED", tmp_path / "shipped")
    library.save(tmp_path / "shipped" / "sides", replace(card(), id="sides", version="2020.01.01"), NETWORKS[0])
    return tmp_path / "home"


NETWORKS = [build("tiny", 1, seed) for seed in range(2)]


def card(**other) -> ModelCard:
    made = ModelCard(
        id="ours",
        title="Sides",
        version="2025.11.23",
        size="tiny",
        task="binary",
        classes=("right", "left"),
        modality="Noise",
        dicom_modalities=(),
        colour=False,
        input=InputSpec(64, 64),
        temperature=1.0,
        operating_point=OperatingPoint((0.5, 0.5), "Half."),
        weights_sha256="",
        metrics={"sanity": SANE},
        training={"command": "python -m training run", "seed": 7},
    )
    return replace(made, **other)


def finished(result: dict = BETTER, number: int = 0, **other) -> str:
    """A run that is done, with its model. Returns its id."""
    folder = places.runs() / f"20251123-101500-{number:04x}"
    folder.mkdir(parents=True)
    plan = Plan("ours", TrainConfig(start="scratch", frozen_stages=0), About("Sides"))
    jobs.write_plan(folder / jobs.PLAN, plan)
    (folder / jobs.SOURCE).write_text('"sides.zip"')
    jobs.write_state(folder, jobs.State(jobs.DONE))
    library.save(folder / "model", card(**other), NETWORKS[1])
    (folder / "result.json").write_text(json.dumps(result))
    return folder.name


def in_use(model_id: str = "sides") -> str:
    """The version that both ways to look for a model agree on."""
    listed = next((one.version for one in library.list_cards() if one.id == model_id), "")
    found = library.read_card(library.find(model_id)).version if listed else ""
    assert listed == found
    return found


def test_a_model_that_nothing_speaks_against_is_promoted_with_how_it_came_about_on_its_card():
    run_id = finished()
    promoted = promote.promote(run_id, "sides")
    told = promoted.training["promotion"]
    assert told["run"] == run_id
    assert told["verdict"] == "better"
    assert told["compared_with"] == "sides 2020.01.01"
    assert "objections" not in told
    assert "reason" not in told
    assert promoted.training["seed"] == 7  # what was on the card stays
    assert (promoted.id, promoted.title) == ("sides", "Sides")
    model = library.load("sides", "cpu")  # in place of the shipped one of this id
    assert model.card == promoted
    weights = (places.runs() / run_id / "model" / library.WEIGHTS).read_bytes()
    assert (library.find("sides") / library.WEIGHTS).read_bytes() == weights
    assert f"version {promoted.version}" in (library.find("sides") / "README.md").read_text()
    assert library.read_card(places.runs() / run_id / "model").id == "ours"  # the run's own stays as it was


def test_a_model_that_has_nobody_to_compare_with_is_promoted_on_its_own_figures():
    promoted = promote.promote(finished(ALONE), "ours")
    assert promoted.training["promotion"]["verdict"] == "alone"
    assert "compared_with" not in promoted.training["promotion"]
    assert in_use("ours") == promoted.version


WORSE = BETTER | {"verdict": "worse"}
LOWER = BETTER | {"verdict": "alike"} | {name: {"value": -0.01} for name in ("auroc_gain", "accuracy_gain")}
GUESS = BETTER | {"child": {"auroc": {"value": 0.61, "low": 0.5, "high": 0.7}}}
UNKNOWN = BETTER | {"child": {"auroc": dict.fromkeys(("value", "low", "high"), float("nan"))}}
SAME_MAPS = {"scans": 8, "weights": SANE["weights"] | {"gradcam": {"head": 0.9, "stem": 0.5}}}
SAME_LIME = {"scans": 8, "weights": SANE["weights"] | {"lime": {"stem": 0.71}}}


@pytest.mark.parametrize(
    ("result", "sane", "said"),
    [
        (WORSE, SANE, "It is worse than sides"),
        (LOWER, SANE, "both AUROC and accuracy are lower"),
        (GUESS, SANE, "cannot be told from guessing: its AUROC on held-out cases is 0.610, and may be as low as 0.500"),
        (UNKNOWN, SANE, "cannot be told from guessing"),
        (BETTER, SAME_MAPS, "Grad-CAM shows the picture, not this model.*rank correlation 0.50"),
        (BETTER, SAME_LIME, "LIME shows the picture, not this model.*rank correlation 0.71"),
        (BETTER, {}, "Whether its maps depend on what it learned was not tested"),
    ],
)
def test_what_speaks_against_a_model_refuses_it_unless_a_person_says_why(result, sane, said):
    run_id = finished(result, metrics={"sanity": sane})
    for reason in ("", "because", "   because     "):  # fewer than ten characters, blanks aside
        with pytest.raises(PromotionRefused, match=said):
            promote.promote(run_id, "sides", reason)
    assert in_use() == "2020.01.01"
    assert not places.site_models().exists()
    assert not places.versions().exists()
    promoted = promote.promote(run_id, "sides", f"  {REASON} ")
    assert promoted.training["promotion"]["reason"] == REASON
    assert promoted.training["promotion"]["objections"] == promote.objections(jobs.find(run_id))
    assert len(promoted.training["promotion"]["objections"]) == 1
    assert library.load("sides", "cpu").card == promoted


def test_all_that_speaks_against_a_model_is_said_at_once():
    run_id = finished(WORSE | GUESS | {"verdict": "worse"}, metrics={"sanity": SAME_MAPS})
    with pytest.raises(PromotionRefused) as refused:
        promote.promote(run_id, "sides")
    for said in ("guessing", "worse than", "Grad-CAM", "Keep the model in use"):
        assert said in str(refused.value)


@pytest.mark.parametrize("name", ["auroc_gain", "accuracy_gain"])
def test_one_figure_that_is_lower_within_its_interval_does_not_speak_against(name):
    result = LOWER | {name: {"value": 0.01}}
    assert promote.objections(jobs.find(finished(result))) == []


def test_a_reason_for_a_model_that_needs_none_is_not_kept():
    assert "reason" not in promote.promote(finished(), "sides", REASON).training["promotion"]


def test_a_run_without_a_result_cannot_be_promoted():
    run_id = finished()
    for torn in ("", '{"child": '):
        (places.runs() / run_id / "result.json").write_text(torn)
        with pytest.raises(ConfigError, match="no result yet"):
            promote.promote(run_id, "sides", REASON)
    (places.runs() / run_id / "result.json").unlink()
    with pytest.raises(ConfigError, match="no result yet"):
        promote.promote(run_id, "sides", REASON)
    assert in_use() == "2020.01.01"


def test_what_would_be_replaced_without_comparison_speaks_against():
    run_id = finished()
    run = jobs.find(run_id)
    assert promote.objections(run, "sides") == []
    assert promote.objections(run, "new-name") == []
    first = promote.promote(run_id, "sides").version
    (later,) = promote.objections(run, "sides")
    assert later.startswith(f"It was compared with sides 2020.01.01, and {first} is in use by now")
    (alone,) = promote.objections(jobs.find(finished(ALONE, 1)), "sides")
    assert alone == "It was not compared with sides, the model that it would replace."


def test_a_model_that_was_measured_on_the_cases_it_was_chosen_by_is_not_promoted_unnoticed():
    (said,) = promote.objections(jobs.find(finished(BETTER | {"split": "val"})), "sides")
    assert "measured on the cases that it was chosen by" in said


@pytest.mark.parametrize("place", [(record, "register"), (promote, "note")])
def test_where_the_registry_or_the_audit_log_cannot_be_written_nothing_is_changed(place, monkeypatch):
    run_id = finished()

    def broken(*_, **__):
        raise RecordsError("disk I/O error")

    with monkeypatch.context() as patch, pytest.raises(MedFusionError):
        patch.setattr(*place, broken)
        promote.promote(run_id, "sides")
    assert in_use() == "2020.01.01"
    first = promote.promote(run_id, "sides").version
    with monkeypatch.context() as patch, pytest.raises(MedFusionError):
        patch.setattr(promote, "note", broken)
        promote.roll_back("sides")
    assert in_use() == first


def test_promotion_and_the_way_back_stand_in_the_audit_log():
    version = promote.promote(finished(), "sides").version
    promote.roll_back("sides")
    told = [(one.action, one.subject, one.details.get("version")) for one in audit.entries(2)]
    assert told == [("model rolled back", "model sides", version), ("model promoted", "model sides", version)]


def test_no_version_is_ever_written_twice():
    run_id = finished()
    versions = [promote.promote(run_id, "sides", REASON).version for _ in range(3)]
    day = versions[0]
    assert versions == [day, f"{day}.2", f"{day}.3"]
    assert [one.card.version for one in promote.list_versions("sides")] == versions[::-1]
    assert [one.in_use for one in promote.list_versions("sides")] == [True, False, False]
    other = promote.promote(run_id, "ours", REASON)
    assert other.version == day  # of another model


def test_the_version_of_the_shipped_model_is_not_given_again(tmp_path):
    today = promote.next_version("sides")
    library.save(tmp_path / "shipped" / "sides", card(id="sides", version=today), NETWORKS[0])
    assert promote.promote(finished(), "sides", REASON).version == f"{today}.2"


def test_the_way_back_leads_over_the_one_before_to_the_shipped_model_and_ends_there():
    run_id = finished()
    first, second = (promote.promote(run_id, "sides", REASON).version for _ in range(2))
    assert in_use() == second
    assert promote.roll_back("sides") == f"sides {first} is in use again."
    assert in_use() == first
    assert promote.roll_back("sides") == "The shipped sides is in use again."
    assert in_use() == "2020.01.01"
    with pytest.raises(ConfigError, match="There is nothing to go back to"):
        promote.roll_back("sides")
    assert [one.card.version for one in promote.list_versions("sides")] == [second, first]  # nothing is thrown away
    assert not any(one.in_use for one in promote.list_versions("sides"))


def test_the_way_back_of_a_model_that_was_not_shipped_leads_to_none():
    promote.promote(finished(), "ours")
    assert promote.roll_back("ours") == "ours is not in use any more."
    assert in_use("ours") == ""


def test_the_way_back_leads_to_what_was_in_use_and_not_to_what_was_given_up():
    run_id = finished()
    good, bad = (promote.promote(run_id, "sides", REASON).version for _ in range(2))
    promote.roll_back("sides")  # from the bad one
    third = promote.promote(run_id, "sides", REASON).version
    assert in_use() == third != bad
    assert promote.roll_back("sides") == f"sides {good} is in use again."
    promote.roll_back("sides")
    fourth = promote.promote(run_id, "sides", REASON).version
    assert in_use() == fourth
    assert promote.roll_back("sides") == "The shipped sides is in use again."  # it was in use before the fourth


def test_a_version_can_be_chosen_by_its_name():
    first, second = (promote.promote(run_id, "sides", REASON).version for run_id in [finished()] * 2)
    promote.use("sides", first)
    assert in_use() == first
    promote.use("sides", second)
    assert in_use() == second
    with pytest.raises(ConfigError, match="There is no version 1999"):
        promote.use("sides", "1999")
    assert in_use() == second


def test_the_sites_model_hides_the_shipped_one_of_the_same_id_and_no_other():
    shipped = library.load("sides", "cpu")
    promoted = promote.promote(finished(), "sides", REASON)
    assert [(one.id, one.version) for one in library.list_cards()] == [("sides", promoted.version)]
    assert library.load("sides", "cpu").card.weights_sha256 != shipped.card.weights_sha256
    promote.promote(jobs.list_runs()[0].id, "ours")
    assert [one.id for one in library.list_cards()] == ["ours", "sides"]
    assert library.problems() == []


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        ".",
        "..",
        "../sides",
        "a/b",
        "/etc",
        "a\\b",
        "a\0b",
        "Sides",
        "a--b",
        "-a",
        "a-",
        "a b",
        "a\n",
        "ä",
        "x" * 61,
    ],
)
def test_a_name_that_cannot_name_a_model_is_refused_and_nothing_is_written(hostile, home):
    run_id = finished()
    before = sorted(home.rglob("*"))
    for act in (lambda: promote.promote(run_id, hostile), lambda: promote.roll_back(hostile)):
        with pytest.raises(ConfigError, match="cannot name a model"):
            act()
    assert sorted(home.rglob("*")) == before


def test_a_model_that_was_put_there_by_hand_is_not_overwritten():
    by_hand = places.site_models() / "sides"
    shutil.copytree(library.SHIPPED / "sides", by_hand)
    with pytest.raises(ConfigError, match="put into models by hand"):
        promote.promote(finished(), "sides", REASON)
    assert in_use() == "2020.01.01"
    assert not by_hand.is_symlink()
    for act in (promote.roll_back, promote.list_versions):
        with pytest.raises(ConfigError, match="by hand"):
            act("sides")
    assert (by_hand / library.CARD).exists()


@pytest.mark.parametrize("place", [(promote, "point"), (Path, "replace"), (promote.library, "save")])
def test_a_crash_before_the_link_moves_leaves_the_model_in_use(place, monkeypatch):
    run_id = finished()
    first = promote.promote(run_id, "sides", REASON).version

    def crash(*_):
        raise OSError("power cut")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="power cut"):
        patch.setattr(*place, crash)
        promote.promote(run_id, "sides", REASON)
    assert in_use() == first
    assert library.load("sides", "cpu").card.version == first
    assert library.problems() == []
    assert [one.card.version for one in promote.list_versions("sides") if one.in_use] == [first]
    again = promote.promote(run_id, "sides", REASON).version
    assert in_use() == again
    promote.roll_back("sides")
    assert in_use() == first  # not what was never in use


def test_a_version_that_was_deleted_by_hand_does_not_block_the_way_back():
    run_id = finished()
    first, second = (promote.promote(run_id, "sides", REASON).version for _ in range(2))
    shutil.rmtree(places.versions() / "sides" / second)
    assert in_use() == "2020.01.01"  # the link leads nowhere
    promote.roll_back("sides")
    assert in_use() in (first, "2020.01.01")
    assert not [one for one in places.site_models().iterdir() if not one.exists()]


def test_the_registry_knows_versions_and_which_is_in_use(home, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    run_id = finished()
    first, second = (promote.promote(run_id, "sides", REASON).version for _ in range(2))
    assert (home / "mlflow.db").exists()
    client = record.MlflowClient(record.address())

    def alias() -> str:
        return client.get_model_version_by_alias("sides", record.IN_USE).tags["version"]

    entered = client.search_model_versions("name = 'sides'")
    assert {one.tags["version"] for one in entered} == {first, second}
    assert {Path(one.source).name for one in entered} == {first, second}
    assert alias() == second
    promote.roll_back("sides")
    assert alias() == first
    promote.roll_back("sides")
    assert client.get_registered_model("sides").aliases == {}
    third = promote.promote(run_id, "sides", REASON).version
    assert alias() == third

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'other.db'}")  # that knows nothing of it
    assert promote.roll_back("sides") == "The shipped sides is in use again."
