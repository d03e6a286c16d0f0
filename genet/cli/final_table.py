"""The end of a run as a user sees it: its final table, and the answer for programs."""

from __future__ import annotations

from pathlib import Path

from genet.cli.console import Answer, noise, table
from genet.config.budget import Budget
from genet.device import cpus
from genet.export.manifest import EVIDENCE_FILE, Exports
from genet.latency.noise import TOO_NOISY, with_interval
from genet.latency.table import Setting
from genet.names import quoted
from genet.progress import wrapped
from genet.search.outcome import Outcome, Outcomes, RacedNetwork, UnmetBudget, cost_in_words, percent


def answer_of(found: Outcomes) -> Answer:
    """Return the outcomes for programs, with the paths of their exports, and whether any budget was met."""
    rows = [{**row.model_dump(mode="json"), "export": row.export} for row in found.outcomes]
    return {**found.model_dump(mode="json"), "outcomes": rows, "met": bool(found.outcomes or not found.unmet)}


def print_outcomes(found: Outcomes, folder: Path) -> None:
    """Print the final table, 80 columns wide, with notations and folders below it, one a line."""
    rows = [_row(row, row.name in found.unlearnt) for row in found.outcomes]
    rows += [_unmet(each) for each in found.unmet]
    rows += [["none was trained", _budget(each), "", "", "", ""] for each in found.untrained]
    masternet = f"{100 * found.masternet.test_accuracy:.1f}"
    name = f"MasterNet ({found.won.design})" if found.won else "MasterNet"
    rows.append([name, "", f"{found.trained_masternet_ms_per_image:.4f}", masternet, "", ""])
    table(["network", "budget", "ms/image", "test %", "compared to", "params"], rows)
    single = all(each.trainings == 1 for each in found.raced)
    once = ", from the choice of images alone, as all were trained once" if single else ""
    wide = ", or 'at most' its upper end" if found.widest_interval > TOO_NOISY else ""
    errors = f"accuracies are ± one standard error{once}; latencies ± half of a 99.9 % interval{wide}"
    print(wrapped(f"{errors}. {_latencies(found)}"))
    if found.outcomes:
        print("held-out images decide who wins, as shown below; test images decide nothing")
    print(wrapped("the MasterNet was trained once, by `master` in the recipe; all others were trained by `train`"))
    if found.not_within_note:
        print(wrapped(found.not_within_note))
    if found.noise_warning:
        print(wrapped(found.noise_warning))
    cost = cost_in_words(found.cost) if found.cost else f"{found.trainings:.1f} full trainings"
    print(wrapped(f"the search and the race cost as much as {cost}"))
    if found.initial_weights_note:
        print(wrapped(found.initial_weights_note))
    print()
    for row in found.outcomes:
        print(wrapped(f"budget {row.budget}: {row.verdict}"))
    for title, others in (
        ("also trained fully", [f"{row.name} {_accuracy(row.held_out_accuracy, row.held_out_error)}" for row in found.others]),
        ("dropped after a short training", [f"{name} {100 * reached:.1f}" for name, reached in found.outraced.items()]),
    ):
        if others:
            print(wrapped(f"{title}, with held-out accuracy in %: {', '.join(others)}"))
    _print_networks(found, folder)
    for name, why in found.failed.items():
        print("\n" + wrapped(f"{name} dropped out of the race: {why}"))


def _print_networks(found: Outcomes, folder: Path) -> None:
    """Print each exported network once, with all budgets it stands for and the fastest of its files.

    A network that is not exported yet has neither files nor a card; the command that writes them is printed.
    """
    rows, roles = dict[str, RacedNetwork](), dict[str, dict[str, list[str]]]()
    for outcome in found.outcomes:
        for row in outcome.exported:
            rows.setdefault(row.name, row)
            role = "winner" if row.name == outcome.name else "best of the search"
            roles.setdefault(row.name, {}).setdefault(role, []).append(str(outcome.budget))
    for name, row in rows.items():
        place = folder / "networks" / name
        print(f"\n{name}, " + ", ".join(f"{role} for {' and '.join(budgets)}" for role, budgets in roles[name].items()))
        print(f"  {row.network}")
        if name in found.unlearnt:
            print(wrapped(f"  it has learnt nothing: {found.unlearnt[name]}"))
        evidence = folder / row.export / EVIDENCE_FILE
        if not evidence.exists():
            print(f"  next: genet export {quoted(folder)}")
            continue
        print(f"  exports: {folder / row.export}")
        if fastest := _fastest(Exports.load(evidence), row, found.setting):
            print(wrapped(f"  {fastest}"))
        print(f"  how to load and serve it: {place / 'card.md'}")
        print(f"  next: genet latency {quoted(place)}{_as_certified(found.setting)}")


def _as_certified(setting: Setting) -> str:
    """Return the options that time an export at the batch and with the threads of the run."""
    threads = setting.device.processors if setting.device.kind == "cpu" else None
    return f" --batch {setting.batch}" + (f" --threads {threads}" if threads and threads != cpus() else "")


def _fastest(exports: Exports, row: RacedNetwork, setting: Setting) -> str:
    """Return which file of an export is fastest, and how much of the certified latency it takes; empty if none was timed."""
    serving, found = exports.serving, exports.fastest
    if serving is None or found is None:
        return ""
    form, served = found
    ms = serving.ms_per_image(form.format) or 0.0
    told = f"fastest: {next(reversed(form.files))} in {served.runtime}, {ms:.4f} ms/image at batch {serving.batch} when exported"
    if row.ms_per_image and not row.too_noisy:
        word = "estimated" if setting.estimate else "certified"
        told += f", {ms / row.ms_per_image:.2f}x the {row.ms_per_image:.4f} {word} in {setting.runtime}"
    if (served.spread or 0.0) > TOO_NOISY:
        told += f", {noise(served.spread or 0.0)}"
    return told if form.accuracy is None else f"{told}; {percent(form.accuracy)} on test images"


def _latencies(found: Outcomes) -> str:
    """Return a sentence about the column of latencies."""
    how = "Estimated" if found.setting.estimate else "Measured"
    served = f"{found.setting.runtime} at batch {found.setting.batch}"
    return f"{how} in {served}, in turn with the MasterNet, as multiples of its {found.masternet_ms_per_image:.4f} ms/image."


def _row(row: Outcome, unlearnt: bool) -> list[str]:
    if row.searched:
        rival = f"{row.known.design}\n{_test(row.known)}" if row.known else "no known design"
    else:
        rival = f"of the search\n{_test(row.best_searched)}" if row.best_searched else "none of the\nsearch"
    return [
        row.name,
        _budget(row.budget) + (f"\n{row.budget_ms_per_image:.4f}" if row.budget.relative else ""),
        _ms(row.ms_per_image, row.interval_ms_per_image) + ("\ntoo noisy\nto tell" if row.too_noisy else ""),
        _test(row) + ("\nlearnt\nnothing" if unlearnt else ""),
        rival + (", tie" if row.tie else ""),
        _count(row.parameters),
    ]


def _unmet(row: UnmetBudget) -> list[str]:
    if row.measured_ms_per_image is None:
        smallest = f"from {'about ' * row.approximate}{row.smallest_ms_per_image:.4f}"
        return ["cannot be met", _budget(row.budget), smallest, "", "", ""]
    return ["not certified", _budget(row.budget), _ms(row.measured_ms_per_image, row.interval_ms_per_image), "", "", ""]


def _ms(ms: float | None, interval: float | None) -> str:
    """Return a latency for a narrow column."""
    return with_interval(ms, interval).replace(" ± ", "±").replace("at most ", "at most\n")


def _budget(budget: Budget) -> str:
    """Return a budget for a narrow column; one per image has no unit, as it is that of the next column."""
    return f"{budget.amount:.4g}" if budget.unit == "ms/image" else str(budget)


def _test(row: RacedNetwork) -> str:
    return _accuracy(row.test_accuracy, row.test_error)


def _accuracy(share: float, error: float) -> str:
    return f"{100 * share:.1f}±{100 * error:.1f}"


def _count(number: int) -> str:
    """Return a count as people read it, in at most six characters."""
    rounded = float(f"{number:.3g}")  # which may be of the next unit
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if rounded >= size:
            return f"{rounded / size:g}{unit}"
    return str(number)
