"""How far each map can be believed: a line or two under the map, the curves and all methods on demand."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import NamedTuple

import plotly.graph_objects as go
import streamlit as st

from medfusion import service
from medfusion.service import Faithfulness, Stability
from medfusion.types import Explanation, Prediction, Scan
from pages.ui import archive as archives
from pages.ui import resources, state
from pages.ui.figure import plain_layout
from pages.ui.messages import plain
from pages.ui.resources import Job, Report
from pages.ui.state import Case

REPEAT = "repeat"  # key of the switch that repeats a method with other seeds
COMPARE = "compare-all"
CURVES = (
    "Left: the picture is blurred bit by bit, the most marked places first; a faithful map lets the probability fall "
    "early. Right: it is shown bit by bit, the most marked places first; a faithful map brings it back early."
)
SAVED = (
    "Pictures, arrays and a JSON with every setting, from which `python -m medfusion explain --replay` makes the same "
    "maps again. It holds the scan as shown, so treat it like the scan."
)
MAP_COLOUR, RANDOM_COLOUR = "#2f86bd", "#8a8f96"


class Task(NamedTuple):
    """Slow work that the page does step by step, with a way to stop."""

    key: Hashable
    title: str
    run: Callable[[Report], object]


def title(method: str) -> str:
    return service.EXPLAINERS[method].title


def repeats(job: Job) -> list[Job]:
    """The same explanation with other seeds."""
    return [job._replace(seed=job.seed + more) for more in range(1, service.SEEDS)]


def is_repeated(method: str) -> bool:
    """Whether the reader wants to see what other seeds give."""
    return service.EXPLAINERS[method].draws_random_numbers and state.is_on(f"{REPEAT}-{method}")


def stability(job: Job) -> Stability | None:
    """Over all seeds, when the reader wants it and each is there."""
    if not is_repeated(job.method):
        return None
    made = [resources.explanation(one) for one in (job, *repeats(job))]
    complete = [one for one in made if one]
    return service.stability(complete) if len(complete) == len(made) else None


def tasks(jobs: dict[str, Job], scan: Scan) -> Iterator[Task]:
    """What is still to do for the maps that are there: their tests, other seeds, and the other methods if wanted."""
    for method, job in jobs.items():
        made = resources.explanation(job)
        if made and resources.tested(job) is None:
            yield Task(("test", job), f"the test of {title(method)}", partial(resources.test, job, scan, made))
    for method, job in jobs.items():
        for number, other in enumerate(repeats(job) if is_repeated(method) else [], start=2):
            if resources.explanation(other) is None:
                name = f"{title(method)}, seed {number} of {service.SEEDS}"
                yield Task(other, name, partial(resources.explain, other, scan))


def show_trust(job: Job) -> None:
    """Under one map: whether it is faithful, and stable."""
    tests = resources.tested(job)
    if tests and tests.faithfulness:
        icon = "check" if tests.faithfulness.is_better_than_random else "warning"
        st.markdown(f":material/{icon}: {faithful_words(tests.faithfulness)}")
    if service.EXPLAINERS[job.method].draws_random_numbers:
        st.toggle(
            f"Repeat with {service.SEEDS - 1} other seeds",
            key=f"{REPEAT}-{job.method}",
            help="Hatches what another seed might turn round.",
            persist_state="session",
        )
        found = stability(job)
        if found:
            st.markdown(stable_words(found))
    if tests and tests.faithfulness:
        with st.popover("Test of this map", icon=":material/show_chart:"):
            show_curves(job, tests.faithfulness)


def faithful_words(found: Faithfulness) -> str:
    count = service.RANDOM_MAPS
    if found.is_better_than_random:
        return f"Hiding what it marks matters more than hiding what any of {count} random maps marks."
    as_good = count - round(found.better_than * count)
    mark = "marks" if as_good == 1 else "mark"
    return f"No better than random: hiding what {as_good} of {count} random maps {mark} matters as much or more."


def how_sure(job: Job) -> str:
    """What the tests of a map found, read out with it; empty until it is tested."""
    tests, stable = resources.tested(job), stability(job)
    faithful = faithful_words(tests.faithfulness) if tests and tests.faithfulness else ""
    return " ".join(filter(None, [faithful, stable_words(stable) if stable else ""]))


def stable_words(found: Stability) -> str:
    same = f"{100 * found.jaccard:.0f} %" if found.jaccard == found.jaccard else "nothing"
    return (
        f"Of the strongest tenth, {same} is common to two seeds on average (Jaccard; 100 % is best). "
        f"{100 * found.unstable_share:.0f} % of the support might turn round with another seed: hatched."
    )


def show_curves(job: Job, found: Faithfulness) -> None:
    """Deletion and insertion against random maps, and the figures."""
    figure = go.Figure()
    curves = (
        ("x", found.deletion_curve, found.random_deletion_curve),
        ("x2", found.insertion_curve, found.random_insertion_curve),
    )
    for axis, own, random in curves:
        for values, name, colour in ((own, title(job.method), MAP_COLOUR), (random, "random maps", RANDOM_COLOUR)):
            figure.add_scatter(
                x=[100 * share for share in service.SHARES], y=values, name=name, xaxis=axis, mode="lines",
                line={"color": colour, "dash": "solid" if colour == MAP_COLOUR else "dot"}, showlegend=axis == "x",
            )  # fmt: skip
    figure.update_layout(
        height=260,
        width=520,
        margin={"l": 46, "r": 8, "t": 8, "b": 76},
        xaxis={"domain": [0, 0.47], "title": "hidden, %"},
        xaxis2={"domain": [0.53, 1], "title": "shown, %"},
        yaxis={"title": "probability", "range": [0, 1.02]},
        legend={"orientation": "h", "y": -0.36},
        **plain_layout(),
    )
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False, tickvals=[0, 0.5, 1])  # fmt: skip
    words = f"Area under deletion {found.deletion:.2f}, under insertion {found.insertion:.2f}, ROAD {found.road:.2f}."
    st.plotly_chart(figure, key=f"curves-{job.method}", config={"staticPlot": True}, theme=None, alt=words)
    st.caption(CURVES)
    st.table({
        "Measure": ["Deletion (smaller is better)", "Insertion (larger is better)", "ROAD (larger is better)"],
        "This map": [f"{found.deletion:.3f}", f"{found.insertion:.3f}", f"{found.road:.3f}"],
        "Better than, of the random maps": [*[f"{100 * found.better_than:.0f} % (both together)"] * 2,
                                            f"{100 * found.road_better_than:.0f} %"],
    })  # fmt: skip


def show_shortcuts(jobs: dict[str, Job]) -> None:
    """What borders, background and markers do to the answer; in the words of the first map that is tested."""
    tests = next(filter(None, map(resources.tested, jobs.values())), None)
    if tests:
        st.markdown(f"**Shortcuts.** {plain(tests.shortcuts.in_words())}")


def show_comparison(jobs: dict[str, Job], scan: Scan, run: Callable[[Task], None]) -> None:
    """All methods on this scan, one row each, when the reader asks for it. run: does a slow task, and draws again."""
    wanted = st.toggle("Compare all methods on this scan", key=COMPARE, persist_state="session")
    if not wanted:
        return
    for method, job in jobs.items():
        made = resources.explanation(job)
        if made is None:
            run(Task(job, title(method), partial(resources.explain, job, scan)))
        elif resources.tested(job) is None:
            run(Task(("test", job), f"the test of {title(method)}", partial(resources.test, job, scan, made)))
    st.dataframe([row for job in jobs.values() if (row := comparison_row(job))], hide_index=True)


def offer_files(case: Case, jobs: dict[str, Job], scan: Scan, prediction: Prediction) -> None:
    """The maps in view with a report, their tests and how to make them again, as one zip that is made on demand.

    Not by a button that makes its file when clicked: Streamlit forgets such a file when a fragment runs, as on zooming.
    """
    made = {method: found for method, job in jobs.items() if (found := resources.explanation(job))}
    if not made:
        return
    about = tuple(jobs[method] for method in made)
    with st.container(horizontal=True):
        if st.button("Save maps and report", icon=":material/archive:", help=SAVED):
            with st.spinner("Packing…"):
                state.keep_archive(about, archive(case, jobs, made, scan, prediction))
        packed = state.archive(about)
        if packed:
            st.download_button(
                "Download maps.zip", packed, "maps.zip", "application/zip", icon=":material/download:",
                on_click="ignore", type="primary",
            )  # fmt: skip
        archives.offer_sending(case, lambda name: send(name, case, jobs, made, scan, prediction))


def send(
    name: str,
    case: Case,
    jobs: dict[str, Job],
    made: dict[str, Explanation],
    scan: Scan,
    prediction: Prediction,
) -> str:
    """Send the report with the maps in view to an archive. Returns what was sent, in a sentence."""
    job = next(iter(jobs.values()))
    model = resources.model(job.model_id, job.model_version)
    content = resources.content(case)
    maps = list(made.values())
    return service.send_report(name, case.worklist_id, model, scan, maps, tests_of(jobs, made), prediction, content)


def archive(
    case: Case, jobs: dict[str, Job], made: dict[str, Explanation], scan: Scan, prediction: Prediction
) -> bytes:
    job = next(iter(jobs.values()))
    model = resources.model(job.model_id, job.model_version)
    tests = tests_of(jobs, made)
    return service.save_explanations(model, scan, list(made.values()), tests, prediction, resources.content(case))


def tests_of(jobs: dict[str, Job], made: dict[str, Explanation]) -> service.Tests:
    """What is known of the maps in view."""
    tested = {method: found for method in made if (found := resources.tested(jobs[method]))}
    return service.Tests(
        {method: found.faithfulness for method, found in tested.items()},
        {method: over for method in made if (over := stability(jobs[method]))},
        {method: found.shortcuts for method, found in tested.items()},
    )


def comparison_row(job: Job) -> dict[str, str] | None:
    made, tests = resources.explanation(job), resources.tested(job)
    if not made:
        return None
    found = tests.faithfulness if tests else None
    return {
        "Method": title(job.method),
        "Better than random": "untested" if not found else "yes" if found.is_better_than_random else "no",
        "Deletion (small)": f"{found.deletion:.3f}" if found else "",
        "Insertion (large)": f"{found.insertion:.3f}" if found else "",
        "ROAD (large)": f"{found.road:.3f}" if found else "",
        "Seconds": f"{made.elapsed_s:.2f}",
    }
