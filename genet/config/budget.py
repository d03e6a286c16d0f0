"""A latency budget in its three forms, and the one place in which a form becomes another."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from genet.arch.network import broken_rule

Unit = Literal["ms", "ms/image", "x"]
RULE = (
    "must be milliseconds per batch such as 5ms or per image such as 0.2ms/image, or a multiple of the MasterNet's such as 0.5x"
)


@dataclass(frozen=True)
class Budget:
    """The most latency that a network may have: `5ms` per batch, `0.2ms/image`, or `0.5x` of the MasterNet's own."""

    amount: float
    unit: Unit

    @classmethod
    def parse(cls, given: object) -> Budget:
        """Return the budget that a user wrote; a number alone is milliseconds per image. A rule error for any other text."""
        found = given
        if isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given):
            found = cls(float(given), "ms/image")
        elif isinstance(given, str) and (text := re.fullmatch(r"(\d+(?:\.\d+)?)(x|ms|ms/image)", given)):
            found = cls(float(text[1]), text[2])  # type: ignore[arg-type]
        if not isinstance(found, Budget) or not 0 < found.amount < math.inf:
            raise broken_rule(RULE)
        return found

    def __str__(self) -> str:
        digits = f"{Decimal(repr(self.amount)):f}"
        return f"{digits.removesuffix('.0')}{self.unit}"

    @property
    def relative(self) -> bool:
        """Return whether it is a multiple of the MasterNet's latency."""
        return self.unit == "x"

    def ms(self, masternet_ms: float, batch: int) -> float:
        """Return it in milliseconds per batch, given the MasterNet's: 1x is the MasterNet's own, to the last digit."""
        return self.amount * _units(masternet_ms, batch)[self.unit]

    def others(self, masternet_ms: float | None, batch: int) -> str:
        """Return its other forms; without the MasterNet's latency, those that do not depend on it, if there are any."""
        units = _units(masternet_ms, batch)
        own_ms = units.pop(self.unit, None)
        if own_ms is None:
            return ""
        words = {"ms": f" ms per batch of {batch}", "ms/image": " ms/image", "x": "x"}
        return ", ".join(f"{four_digits(self.amount * own_ms / ms)}{words[unit]}" for unit, ms in units.items())

    def all_forms(self, masternet_ms: float, batch: int) -> str:
        """Return it in all forms, its own first."""
        return f"{self} ({self.others(masternet_ms, batch)})"

    def smallest(self, ms: float, masternet_ms: float, batch: int) -> Budget:
        """Return the smallest budget of this form that a network of `ms` per batch keeps; four digits, rounded up."""
        value = ms / _units(masternet_ms, batch)[self.unit]
        places = max(0, 3 - math.floor(math.log10(value)))
        return Budget(math.ceil(value * 10**places) / 10**places, self.unit)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let records read it in each form, and write it as users do."""
        return core_schema.no_info_plain_validator_function(cls.parse, serialization=core_schema.to_string_ser_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "number"}, {"type": "string"}]}


def four_digits(value: float) -> str:
    """Return four digits, or all before the point if there are more."""
    return f"{value:.4g}" if value < 1e4 else f"{value:.0f}"


def _units(masternet_ms: float | None, batch: int) -> dict[Unit, float]:
    """Return the milliseconds per batch that one of each unit is."""
    plain: dict[Unit, float] = {"ms": 1.0, "ms/image": float(batch)}
    return plain if masternet_ms is None else {**plain, "x": masternet_ms}
