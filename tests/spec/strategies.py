"""Random legal networks and search spaces, for hypothesis."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from genet.spec.network import Head, Input, Network, Stem, SuperBlock
from genet.spec.space import SearchSpace

kernels = st.sampled_from([3, 5, 7])
heads = st.none() | st.builds(Head, width=st.integers(1, 40))
multiples_of_8 = st.integers(1, 12).map(lambda count: 8 * count)


@st.composite
def superblocks(draw: st.DrawFn) -> SuperBlock:
    """Any kind, with any ratio whose inner width is a whole multiple of 8."""
    kind = draw(st.sampled_from(["XX", "BL", "DW"]))
    width = draw(multiples_of_8)
    ratio = None
    if kind != "XX":
        inner = draw(multiples_of_8.filter(lambda inner: (inner <= width) if kind == "BL" else (inner >= width)))
        ratio = inner / width
        if width * ratio != inner:  # no float is the ratio of these two
            ratio = 1.0
    stride = draw(st.sampled_from([1, 2]))
    return SuperBlock(
        type=kind,
        depth=draw(st.integers(0 if stride == 1 else 1, 3)),
        width=width,
        stride=stride,
        kernel=draw(kernels),
        ratio=ratio,
    )


stems = st.builds(Stem, kernel=kernels, width=st.integers(1, 20), stride=st.sampled_from([1, 2]))
stacks = st.lists(superblocks(), min_size=1, max_size=4).map(tuple)


def total_stride(stem: Stem, stack: tuple[SuperBlock, ...]) -> int:
    return stem.stride * math.prod(superblock.stride for superblock in stack)


@st.composite
def networks(
    draw: st.DrawFn, stems: st.SearchStrategy[Stem] = stems, stacks: st.SearchStrategy[tuple[SuperBlock, ...]] = stacks
) -> Network:
    """Any legal network of one to four small super-blocks, or of others."""
    stem, stack = draw(stems), draw(stacks)
    smallest = total_stride(stem, stack)
    return Network(
        name=draw(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,4}", fullmatch=True)),
        input=Input(
            channels=draw(st.integers(1, 4)),
            classes=draw(st.integers(2, 20)),
            resolution=draw(st.integers(smallest, smallest + 40)),
        ),
        stem=stem,
        superblocks=stack,
        head=draw(heads),
    )


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """Any legal search space around a small MasterNet."""
    stem, stack = draw(stems), draw(stacks)
    smallest = total_stride(stem, stack)
    rule = draw(st.just("wave-aligned") | st.sampled_from([8, 16, 24]).map(lambda step: {"multiple_of": step}))
    return SearchSpace.model_validate(
        {
            "name": "random",
            "input": {
                "channels": 3,
                "classes": 10,
                "resolutions": draw(st.lists(st.integers(smallest, smallest + 40), min_size=1, max_size=3, unique=True)),
            },
            "stem": stem,
            "superblocks": stack,
            "head": draw(heads),
            "perturb": {
                "width": [draw(st.sampled_from([0.25, 0.5, 1])), draw(st.sampled_from([1, 1.5, 2]))],
                "depth": [draw(st.integers(-3, 0)), draw(st.integers(0, 2))],
                "kernel": draw(st.lists(kernels, min_size=1, max_size=2, unique=True)),
                "ratio": {
                    "BL": draw(st.lists(st.sampled_from([0.125, 0.25, 0.5, 1]), min_size=1, max_size=2, unique=True)),
                    "DW": draw(st.lists(st.sampled_from([1, 1.5, 3, 6]), min_size=1, max_size=2, unique=True)),
                },
                "types": draw(st.none() | st.lists(st.sampled_from(["XX", "BL", "DW"]), min_size=1, max_size=3, unique=True)),
                "samples": 1,
            },
            "widths": rule,
        }
    )
