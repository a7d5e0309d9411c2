"""Figures as people read them."""

from datetime import timedelta


def megabytes(bytes: int) -> str:
    return f"{bytes / 1_000_000:,.1f} MB"


def days(age: timedelta) -> str:
    return f"{age / timedelta(days=1):.1f} days"
