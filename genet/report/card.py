"""The card of a trained network in Markdown: its description, its measurements, and the code to load each format."""

from __future__ import annotations

from dataclasses import dataclass

from genet.arch.cost import Cost
from genet.arch.external import ModelSpec
from genet.config.preprocessing import Preprocessing, mode_of
from genet.export.manifest import Exports
from genet.report.page import found_in, render
from genet.search.outcome import Outcome, Outcomes, Raced, Trained


@dataclass(frozen=True)
class Card:
    """The facts of a card. A network of a run has raced for budgets; one from elsewhere has neither recipe nor accuracy."""

    network: ModelSpec
    cost: Cost
    exports: Exports
    shown: Preprocessing
    labels: tuple[str, ...] | None
    data: str | None = None
    training: str | None = None  # the schedule in YAML
    trained: Trained | None = None
    outcomes: Outcomes | None = None
    raced: Raced | None = None
    answers: tuple[Outcome, ...] = ()


def card(facts: Card) -> str:
    """Return the card's text."""
    tested = {each.test_images for each in facts.exports.exported if each.test_images}
    setting = facts.outcomes.setting if facts.outcomes else None
    return render(
        "card.md",
        facts=facts,
        network=facts.network,
        labels=facts.labels,
        reads=facts.network.input,
        cost=facts.cost,
        exports=facts.exports,
        serving=facts.exports.serving,
        mode=mode_of(facts.network.input.channels),
        tested=max(tested, default=None),
        raced=facts.raced,
        setting=setting,
        found=found_in(setting) if setting else "",
    )
