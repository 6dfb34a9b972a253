"""What tokens cost, by model: an operator's prices (`ENCORE_PRICES`), as JSON.

    {"gpt-4o*": {"input": 2.5, "output": 10}, "text-embedding-3-*": {"input": 0.02}}

USD per million tokens. The first pattern that matches a model's name counts; of a model that none
matches nobody says what it costs.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, RootModel

from shared.envelope import TokenCounts

Usd = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class Price(BaseModel):
    """USD per million tokens of prompts and of completions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Usd = 0.0
    output: Usd = 0.0

    def of(self, tokens: TokenCounts) -> float:
        """What these tokens cost, in USD."""
        return (tokens.prompt * self.input + tokens.completion * self.output) / 1e6


class Prices(RootModel[dict[str, Price]]):
    """Prices by pattern of model names."""

    model_config = ConfigDict(frozen=True)

    root: dict[str, Price] = Field(default_factory=dict)

    def __str__(self) -> str:
        return self.model_dump_json()

    @classmethod
    def parse(cls, text: str) -> Prices:
        """Read the JSON of the setting. Raises ValueError."""
        return cls.model_validate_json(text)

    def of(self, model: str) -> Price | None:
        """The price of a model, None where none is known."""
        matching = (price for pattern, price in self.root.items() if fnmatchcase(model, pattern))
        return next(matching, None)


NO_PRICES = Prices()
