"""Networks in the notation of the GENet paper's own code: one line of parts, each with the widths it reads and writes.

    ConvKX(3,32,3,2)BN(32)RELU(32)SuperResKXKX(32,128,3,2,1.0,1)...ConvKX(640,2560,1,1)BN(2560)RELU(2560)AdaptiveAvgPool(2560,1)

A super-block's numbers are: width read, width, kernel, stride, ratio, depth. Names in front of them (`uuid...|`) are left
out. The line says neither the resolution nor the classes. Without a head the pooling follows the last super-block, and
super-blocks of depth 0 are left out.
"""

from __future__ import annotations

import itertools
import math
import re

from genet.arch.network import Network, SuperBlockKind
from genet.errors import SpecError

PARTS: dict[SuperBlockKind, str] = {"XX": "SuperResKXKX", "BL": "SuperResK1KXK1", "DW": "SuperResK1DWK1"}
KINDS: dict[str, SuperBlockKind] = {part: kind for kind, part in PARTS.items()}
NUMBERS = {"ConvKX": 4, "BN": 1, "RELU": 1, "AdaptiveAvgPool": 2, **dict.fromkeys(KINDS, 6)}
RATIO = 4  # its place among a super-block's numbers; all others are whole
FRAME = ("ConvKX", "BN", "RELU")  # stem and head


def to_genet_string(network: Network) -> str:
    """Return the network's line. SpecError if no super-block of it has a block."""
    if not network.stages:
        raise SpecError([f"a GENet string needs a super-block of depth 1 or more, got {network}"])
    stem, width = network.stem, network.stem.width
    parts = [f"ConvKX({network.input.channels},{width},{stem.kernel},{stem.stride})BN({width})RELU({width})"]
    for block in network.stages:
        ratio = block.ratio or 1.0
        numbers = f"{width},{block.width},{block.kernel},{block.stride},{float(ratio)!r},{block.depth}"
        parts.append(f"{PARTS[block.type]}({numbers})")
        width = block.width
    if network.head:
        head = network.head.width
        parts.append(f"ConvKX({width},{head},1,1)BN({head})RELU({head})")
        width = head
    return "".join([*parts, f"AdaptiveAvgPool({width},1)"])


def from_genet_string(text: str, resolution: int, classes: int = 1000, name: str = "network") -> Network:
    """Return the network of a line, for a resolution and a number of classes; SpecError lists all its unknown parts."""
    parts = _parts(text)
    names = [part for part, _ in parts]
    headed = (*names[-4:-1],) == FRAME and len(names) > len(FRAME) + 1
    end = -4 if headed else -1
    middle = names[3:end]
    if (*names[:3],) != FRAME or names[-1] != "AdaptiveAvgPool" or not middle or set(middle) - set(KINDS):
        frame = ", ".join(FRAME)
        wanted = f"{frame}, super-blocks, {frame} or no head, AdaptiveAvgPool"
        raise SpecError([f"a GENet string must be {wanted} (got {', '.join(names)})"])
    _check_widths(parts)
    (_, stem), (_, head) = parts[0], parts[end]
    if headed and head[2:] != (1, 1):
        raise SpecError([f"the last ConvKX must have kernel 1 and stride 1 (got {head[2]:g} and {head[3]:g})"])
    channels, width, kernel, stride = map(int, stem)
    entries = [f"@{resolution}x{channels}", f"Conv k{kernel} c{width} s{stride}"]
    entries += [_entry(part, numbers) for part, numbers in parts[3:end]]
    entries += [f"Conv k1 c{int(head[1])}"] if headed else []
    return Network.parse(" | ".join([*entries, str(classes)]), name)


def _parts(text: str) -> list[tuple[str, tuple[float, ...]]]:
    """Return every part with its numbers."""
    line, faults, found, end = text.strip(), [], [], 0
    for match in re.finditer(r"(\w+)\((?:[^|()]*\|)?([^|()]*)\)", line):
        name, numbers = match[1], match[2].split(",")
        forms = [r"\d+(\.\d+)?" if place == RATIO else r"\d+" for place in range(len(numbers))]
        if match.start() != end or name not in NUMBERS or not all(map(re.fullmatch, forms, map(str.strip, numbers))):
            faults.append(f"a GENet string must be made of {', '.join(NUMBERS)} with numbers (got {line[end : match.end()]!r})")
        elif len(numbers) != NUMBERS[name]:
            faults.append(f"{name} must have {NUMBERS[name]} numbers (got {match[0]})")
        else:
            found.append((name, tuple(map(float, numbers))))
        end = match.end()
    if end != len(line) or not line:
        faults.append(f"a GENet string must be made of {', '.join(NUMBERS)} with numbers (got {line[end:]!r})")
    if faults:
        raise SpecError(faults)
    return found


def _check_widths(parts: list[tuple[str, tuple[float, ...]]]) -> None:
    """Check that every part reads the width that the one before it writes."""
    writes = [numbers[0] if part in ("BN", "RELU", "AdaptiveAvgPool") else numbers[1] for part, numbers in parts]
    faults = [
        f"{part} must read the width {before:g} of the part before it (got {numbers[0]:g})"
        for before, (part, numbers) in zip(writes, itertools.islice(parts, 1, None), strict=False)
        if numbers[0] != before
    ]
    if faults:
        raise SpecError(faults)


def _entry(part: str, numbers: tuple[float, ...]) -> str:
    """Return a super-block in the project's own notation, whose rules then hold."""
    kind, (_, width, kernel, stride, ratio, depth) = KINDS[part], numbers
    if kind == "XX" and not math.isclose(ratio, 1):
        raise SpecError([f"{part} must have ratio 1, as both its convolutions have one width (got {ratio:g})"])
    if not depth:
        raise SpecError([f"{part} must have a depth of 1 or more (got {depth:g})"])
    entry = f"{kind} k{kernel:g} c{width:g} s{stride:g} d{depth:g}"
    return entry if kind == "XX" else f"{entry} r{ratio!r}".removesuffix(".0")
