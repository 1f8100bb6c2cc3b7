"""What a run may spend and has spent: requests, tokens, money. Failed tries count; sums hold across resumes."""

from __future__ import annotations

from collections.abc import Mapping

from insightv.config.sections import RunSection
from insightv.errors import BudgetSpent, ConfigError
from insightv.records import Usage


class Budget:
    """Running sums against the limits of `[run]`. `totals` are the sums that the run has recorded so far."""

    def __init__(self, limits: RunSection, totals: Mapping[str, float]) -> None:
        self._limits = limits
        self.requests = int(totals["requests"])
        self.tokens = int(totals["prompt_tokens"] + totals["completion_tokens"])
        self.usd = float(totals["usd"])
        self.in_flight = 0

    def check_prices(self, models: set[str]) -> None:
        """Check that every model has a price where money is limited.

        Raises:
            ConfigError: max_usd is set and a model has no price.
        """
        missing = sorted(models - set(self._limits.prices))
        if self._limits.max_usd is not None and missing:
            raise ConfigError(
                f"run.max_usd is set, but run.prices has no price for {', '.join(missing)}; "
                f'add for example: [run.prices."{missing[0]}"] prompt = 0.5, completion = 1.5 (dollars per million)'
            )

    def cost(self, model: str, usage: Usage) -> float:
        """Dollars that `usage` of `model` costs; 0 for a model without a price."""
        price = self._limits.prices.get(model)
        if price is None:
            return 0.0
        cached_price = price.prompt if price.cached is None else price.cached
        fresh = usage.prompt_tokens - usage.cached_tokens
        dollars = fresh * price.prompt + usage.cached_tokens * cached_price + usage.completion_tokens * price.completion
        return dollars / 1e6

    def begin(self) -> None:
        """Count a call as begun.

        Raises:
            BudgetSpent: a limit is reached, calls in flight counted as one request each.
        """
        limits = self._limits
        reached = [
            f"run.{name} = {limit:g} is reached ({spent:g} spent)"
            for name, limit, spent in (
                ("max_requests", limits.max_requests, self.requests + self.in_flight),
                ("max_tokens", limits.max_tokens, self.tokens),
                ("max_usd", limits.max_usd, self.usd),
            )
            if limit is not None and spent >= limit
        ]
        if reached:
            raise BudgetSpent(f"{'; '.join(reached)}; raise it and resume the run")
        self.in_flight += 1

    def end(self, usage: Usage, usd: float) -> None:
        """Count what a call that was begun has cost."""
        self.in_flight -= 1
        self.requests += usage.requests
        self.tokens += usage.prompt_tokens + usage.completion_tokens
        self.usd += usd
