"""The choice of widths and blocks: an integer program that is solved exactly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genet.studies.align.program import GroupOffer, LayerCost, Program, PruningChoice, fastest, least_lost

BLOCKS = ("one", "two")
tenths = st.integers(0, 30).map(lambda number: number / 10)


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Groups inside and outside of blocks; layers over none, one or two of them, made-up latencies, some that failed."""
    blocks = {block: draw(tenths) for block in draw(st.sampled_from([(), BLOCKS[:1], BLOCKS]))}
    offers = []
    for number in range(draw(st.integers(1, 4))):
        widths = tuple(range(8, 8 * draw(st.integers(2, 4)) + 1, 8))
        lost = sorted(draw(st.lists(tenths, min_size=len(widths) - 1, max_size=len(widths) - 1)), reverse=True)
        block = draw(st.sampled_from([None, *blocks]))
        offers.append(GroupOffer(str(number), widths, (*lost, 0.0), sum(lost), block))
    costs = []
    for _ in range(draw(st.integers(1, 6))):
        block = draw(st.sampled_from([None, *blocks]))
        reached = [offer for offer in offers if offer.block in (None, block)]
        names = draw(st.lists(st.sampled_from(reached), max_size=2, unique_by=lambda offer: offer.name)) if reached else []
        shape = [len(offer.widths) for offer in names]
        ms = np.array(draw(st.lists(tenths, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))).reshape(shape)
        if names and draw(st.booleans()):
            ms[(0,) * len(shape)] = np.inf
        costs.append(LayerCost(tuple(offer.name for offer in names), ms, block))
    return Program(tuple(offers), blocks, tuple(costs))


def choices(program: Program) -> Iterator[PruningChoice]:
    """All there are."""
    for stays in itertools.product((True, False), repeat=len(program.blocks)):
        removed = tuple(block for block, there in zip(program.blocks, stays, strict=True) if not there)
        left = [offer for offer in program.offers if offer.block not in removed]
        for widths in itertools.product(*(offer.widths for offer in left)):
            yield PruningChoice(dict(zip((offer.name for offer in left), widths, strict=True)), removed)


@given(programs(), st.floats(0, 1))
def test_the_choice_loses_the_least_of_all_that_are_within_the_latency(program: Program, share: float) -> None:
    limit = share * program.ms(program.present)
    allowed = [choice for choice in choices(program) if program.ms(choice) <= limit + 1e-9]
    found = least_lost(program, limit)
    assert (found is None) == (not allowed)
    if found:
        assert program.ms(found) <= limit + 1e-5
        assert program.lost(found) == pytest.approx(min(map(program.lost, allowed)), abs=1e-5)


@given(programs())
def test_the_fastest_choice_is_the_fastest_of_all(program: Program) -> None:
    assert program.ms(fastest(program)) == pytest.approx(min(map(program.ms, choices(program))), abs=1e-5)
