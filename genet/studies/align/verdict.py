"""The verdict on an alignment: what a goal may be, whether there is anything to gain, and what is handed out if it is not met."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, get_args

from genet.config.options import Spelling, as_option
from genet.errors import EvidenceError
from genet.latency.report import report_latency
from genet.studies.align import TOLERANCE
from genet.studies.align.objective import ObjectiveMode
from genet.studies.align.place import Place
from genet.studies.align.study import UNNOTICED, Alignment, Goal, Ratio, Solver

if TYPE_CHECKING:
    from genet.latency.timing.meter import Meter
    from genet.studies.align.module_subject import ResizableNetwork


def goal_faults(goal: Goal, spelled: Spelling = as_option) -> Iterator[str]:
    """Yield what is wrong with a goal, one line each, with its options as the user spells them."""
    ratio, tolerance, mode = map(spelled, ("target_ratio", "param_tolerance", "mode"))
    for name, value, known in ((mode, goal.mode, ObjectiveMode), (spelled("solver"), goal.solver, Solver)):
        if value not in get_args(known):
            yield f"{name} must be {' or '.join(get_args(known))} (got {value})"
    if goal.reduce is not None and not 0 < goal.reduce < 1:
        yield f"{ratio} must be a share of the latency between 0 and 1, such as 0.85 (got {goal.reduce:g})"
    if not 0 < goal.tolerance < 1:
        yield f"{tolerance} must be a share of the parameters between 0 and 1, such as {TOLERANCE} (got {goal.tolerance:g})"
    if goal.reduce is not None and goal.mode == "accuracy":
        yield f"{ratio}: got {mode} accuracy, which keeps the latency, expected {mode} latency; leave one of them out"


def importance_faults(goal: Goal, asked: str, spelled: Spelling = as_option, others: Sequence[str] = ()) -> Iterator[str]:
    """Yield what is wrong with a goal for the objective by importance, one line each, with its options as the user spells them.

    `asked` is the option that chooses this objective, `others` are further given options that do not go with it.
    """
    if goal.reduce is None:
        yield f"{spelled('target_ratio')}: got none with {asked}, expected the latency to reach; give one such as 0.7"
    given = {
        f"{spelled('mode')} accuracy": goal.mode == "accuracy",
        spelled("param_tolerance"): goal.tolerance != TOLERANCE,
        f"{spelled('solver')} exact": goal.solver == "exact",
    }
    for option in (*others, *(option for option, is_given in given.items() if is_given)):
        yield f"{option}: got {asked} too, expected one of them, as importance chooses widths and channels itself; leave one out"


def has_useful_edge(places: Sequence[Place], goal: Goal) -> bool:
    """Return whether an edge beside a width gives what the goal asks for."""
    if goal.mode == "accuracy":
        return any(place.right is not None for place in places)
    return any(place.latency_gain(option) > 0 for place in places for option in place.options)


def no_edge(subject: ResizableNetwork, goal: Goal, meter: Meter) -> str:
    """Return in words that no width has an edge to move to."""
    side, device = "narrower" if goal.mode == "latency" else "wider", meter.setting.device.name
    return f"{subject.name}: no layer has a {side} edge on {device}, so there is nothing to gain"


def final_alignment(
    found: Alignment,
    subject: ResizableNetwork,
    goal: Goal,
    meter: Meter,
    as_it_was: bool = False,
    spelled: Spelling = as_option,
) -> tuple[Alignment, str]:
    """Return the result, and why the goal is not met (empty if it is), with options as the user spells them.

    EvidenceError if nothing is certain to be better, unless the network `as_it_was` is a result by itself, as a pruned one is.
    """
    if found.reached:
        return found, ""
    hopeful = has_useful_edge(found.places, goal)
    why = _unreached(found, goal, spelled) + _waiting(subject, meter, spelled) if hopeful else no_edge(subject, goal, meter)
    if goal.reduce is not None and found.measured.above < 1:
        return found, why
    if not as_it_was:
        raise EvidenceError(why)
    return found.unmoved(), why


def error_of(ratio: Ratio) -> str:
    """Return a ratio's standard error in words; nothing for an estimate."""
    return f" ± {ratio.error:.3f}" if ratio.error else ""


def _unreached(found: Alignment, goal: Goal, spelled: Spelling) -> str:
    """Return the reason why the goal is not met."""
    better = goal.solver == "greedy" and (goal.mode == "accuracy" or found.optimum < found.predicted - UNNOTICED)
    other = f"; {spelled('solver')} exact may do better" if better else ""
    if goal.mode == "accuracy":
        return f"{found.network}: no choice of neighbouring edges was certain to gain parameters without taking longer{other}"
    if goal.reduce is None:
        return (
            f"{found.network}: no choice of neighbouring edges was certain to be faster with parameters within "
            f"{goal.tolerance:.0%}; a larger {spelled('param_tolerance')} allows more choices{other}"
        )
    return (
        f"{found.network}: {spelled('target_ratio')}: got {goal.reduce}, expected a ratio that neighbouring edges reach "
        f"with certainty; their best is {found.measured.mean:.3f}{error_of(found.measured)}, with "
        f"{found.parameter_gain:+.1%} parameters{other}"
    )


def _waiting(subject: ResizableNetwork, meter: Meter, spelled: Spelling) -> str:
    """Return the reason why no width can matter much, if it is known."""
    if meter.setting.device.kind == "cpu" or report_latency(subject.workload({}), meter).bound != "host":
        return ""
    larger, other = f"a larger {spelled('batch')}", f"{spelled('runtime')} cudagraph"
    return f"; the bottleneck is the host, which launches its kernels: {larger}, or {other}, makes widths matter"
