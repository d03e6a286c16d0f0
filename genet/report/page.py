"""A run as one HTML page that needs no network, and the card of a trained network in Markdown."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from genet.arch.cost import Cost
from genet.arch.external import ModelSpec, read_notation
from genet.arch.network import Network
from genet.config.preprocessing import Preprocessing, mode_of
from genet.config.reader import to_yaml
from genet.config.recipe import Recipe
from genet.export.manifest import Exports
from genet.latency.estimate.intensity import flops_of, intensity_of, layers_of
from genet.latency.estimate.roofline import Roof
from genet.latency.noise import with_interval
from genet.latency.ops import network_ops
from genet.latency.staircase.space_sweeps import Staircases
from genet.latency.table import Setting
from genet.progress import duration
from genet.report import race_figures, search_figures
from genet.report.budget_slider import offers, slowdown
from genet.report.race_figures import ShortTraining
from genet.search.certificate import Certificate, Selection
from genet.search.explain import NEARBY, Explanation
from genet.search.outcome import Outcome, Outcomes, RacedNetwork, TrainedNetwork, percent
from genet.search.regression import Regression
from genet.search.solver import Candidate
from genet.search.tournament import Standing, Tournament
from genet.search.validation import Validation
from genet.trials.results import TrialResult, additivity


class NetworkCard(NamedTuple):
    """A network that wins a budget: its row, its drawing, and what it was exported to."""

    row: RacedNetwork
    drawing: str
    exports: Exports | None


@dataclass(frozen=True)
class ReportData:
    """The content of a page; parts that a run has not reached yet are None or empty."""

    recipe: Recipe
    setting: Setting
    measurements: int
    grid_rows: int  # rows that a table of all widths, at staircase edges or not, would need
    staircases: Staircases | None
    masternet: TrainedNetwork | None
    trials: tuple[TrialResult, ...]
    regression: Regression | None
    fronts: Mapping[int, tuple[Candidate, ...]]
    certificates: Mapping[str, Certificate]  # of those of their networks that were measured, by notation
    selection: Selection | None
    roof: Roof | None
    explanations: tuple[Explanation, ...]
    validation: Validation | None
    outcomes: Outcomes | None
    short: Mapping[str, ShortTraining]  # by notation
    exports: Mapping[str, Exports]  # by network name
    tournament: Tournament | None
    standings: tuple[Standing, ...]  # of its contenders, the best first
    shortfalls: tuple[str, ...]  # requests that could not be fulfilled, a sentence each


def page(report: ReportData) -> str:
    """Return the whole page as text."""
    stairs = search_figures.staircase_info(report.staircases, report.recipe.search_resolution) if report.staircases else ()
    points = search_figures.trial_info(report.trials, report.masternet.nas_accuracy) if report.masternet else ()
    outcomes, regression = report.outcomes, report.regression
    effects = search_figures.effect_info(regression) if regression and regression.gradients else ()
    fronts = search_figures.frontier_info(report.fronts, report.selection, report.setting.batch) if report.fronts else ()
    curves = search_figures.curve_info(report.trials)
    raced = outcomes if outcomes and outcomes.raced else None
    candidates = [each for front in report.fronts.values() for each in front]
    trained = {row.network: row for row in (raced.raced if raced else ())}
    race = race_figures.race_info(raced) if raced else None
    drawn = {
        "staircases": search_figures.draw_staircases(stairs) if stairs else "",
        "trials": search_figures.draw_trials(points) if points else "",
        "curves": search_figures.draw_trial_curves(curves) if curves else "",
        "effects": search_figures.draw_effects(effects) if effects else "",
        "race": race_figures.draw_race(race) if race else "",
        "rungs": race_figures.draw_rungs(race_figures.rungs_info(raced, report.short)) if raced else "",
        "frontier": search_figures.draw_frontier(fronts) if fronts else "",
    }
    script = render("page.js")
    return render(
        "page.html",
        report=report,
        drawn=drawn,
        race=race,
        cards=_cards(report),
        offers=offers(candidates, report.certificates, trained, report.setting.batch),
        slower=slowdown(candidates, report.certificates),
        script=script,
        script_digest=b64encode(sha256(script.encode()).digest()).decode(),
        recipe=to_yaml(report.recipe),
        found=latency_word(report.setting),
        contended=latency_word(report.tournament.setting) if report.tournament else "",
        unclear=search_figures.unclear_stairs(stairs),
        uses=uses(report),
        unlearnt=report.masternet and report.masternet.why_unlearnt(report.recipe.space.input.classes),
        audit=additivity(report.trials),
        nearby=NEARBY,
        spent=duration(sum(trial.seconds.total for trial in report.trials)),
        failures=Counter(trial.failure.kind for trial in report.trials if trial.failure),
    )


def _cards(report: ReportData) -> tuple[NetworkCard, ...]:
    """Return every network that is exported, each once."""
    rows = {row.name: row for outcome in (report.outcomes.outcomes if report.outcomes else ()) for row in outcome.exported}
    return tuple(NetworkCard(row, _drawn(row), report.exports.get(name)) for name, row in rows.items())


def _drawn(row: RacedNetwork) -> str:
    network = read_notation(row.network, row.name)
    return race_figures.draw_network(network) if isinstance(network, Network) else ""


class Use(NamedTuple):
    """One network's use of the device: floating-point operations, FLOP per byte, TFLOP/s, and the share of the roof's.

    `name` is its role in the run: the MasterNet, winner for a budget, selected for one.
    """

    name: str
    network: str
    macs: int
    intensity: float
    tflops_per_sec: float
    utilization: float


def uses(report: ReportData) -> tuple[Use, ...]:
    """Return the MasterNet and every network that wins a budget or is selected, and measured; empty without the device's roof."""
    if report.roof is None or report.selection is None:
        return ()
    masternet, ms = str(report.recipe.space.masternet(report.recipe.search_resolution)), report.selection.masternet_ms_per_image
    won = report.outcomes.won if report.outcomes else report.tournament.won if report.tournament else None
    if won:
        masternet, ms = won.network, won.ms_per_image
    handed_out = report.outcomes.outcomes if report.outcomes else ()
    own = (each for each in handed_out if isinstance(read_notation(each.network, each.name), Network))
    judged = [(each.network, f"winner for {each.budget}", each.ms_per_image) for each in own]
    judged += [(each.network, f"selected for {each.budget}", each.measured_ms_per_image) for each in report.selection.answers]
    roles, timed = {masternet: ["MasterNet"]}, {masternet: ms}
    for network, role, found in judged:
        if found is not None:
            roles.setdefault(network, []).append(role)
            timed.setdefault(network, found)
    return tuple(_use(", ".join(roles[network]), network, ms, report.setting, report.roof) for network, ms in timed.items())


def _use(name: str, notation: str, ms_per_image: float, setting: Setting, roof: Roof) -> Use:
    layers = layers_of(network_ops(Network.parse(notation)), setting.batch, setting.dtype)
    rate = flops_of(layers) / (ms_per_image * setting.batch) * 1e-9
    macs = flops_of(layers) // (2 * setting.batch)
    return Use(name, notation, macs, intensity_of(layers), rate, rate / roof.tflops_per_sec)


def latency_word(setting: Setting) -> str:
    """Return the word for a latency of this setting: estimates are never called measured."""
    return "estimated" if setting.estimate else "measured"


def render(template: str, **values: object) -> str:
    """Return a template of this folder with values filled in."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=template.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": percent,
        "points": lambda estimate: f"{100 * estimate.value:+.2f} ± {100 * estimate.error:.2f}",
        "ms": with_interval,
    }
    return environment.get_template(template).render(**values)


@dataclass(frozen=True)
class Card:
    """The facts of a card. A network of a run has raced for budgets; one from elsewhere has neither recipe nor accuracy."""

    network: ModelSpec
    cost: Cost
    exports: Exports
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None
    data: str | None = None
    training: str | None = None  # the schedule in YAML
    trained: TrainedNetwork | None = None
    outcomes: Outcomes | None = None
    raced: RacedNetwork | None = None
    answers: tuple[Outcome, ...] = ()


def card(facts: Card) -> str:
    """Return the card's text: the network's description, its measurements, and the code to load each format."""
    tested = {each.test_images for each in facts.exports.exported if each.test_images}
    setting = facts.outcomes.setting if facts.outcomes else None
    return render(
        "card.md",
        facts=facts,
        network=facts.network,
        labels=facts.labels,
        input=facts.network.input,
        cost=facts.cost,
        exports=facts.exports,
        serving=facts.exports.serving,
        mode=mode_of(facts.network.input.channels),
        resized=facts.preprocessing.resized(facts.network.input.resolution),
        tested=max(tested, default=None),
        raced=facts.raced,
        setting=setting,
        found=latency_word(setting) if setting else "",
    )
