"""Seconds and dollars as people read them."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """Seconds as people read them: 59s, 3m20s, 2h05m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def dollars(usd: float) -> str:
    """An amount of money; below a dollar with what a cheap run costs."""
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.4f}"
