"""Types of command line arguments; each refuses a wrong value with what was expected."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta

from sleepd.protocol.evidence import METRIC_NAME


def moment_or_age(text: str) -> Callable[[datetime], datetime]:
    """``12h`` or an ISO time (local where it has no offset), as a function of now."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match:
        unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2]]
        age = timedelta(**{unit: int(match[1])})
        return lambda now: now - age
    try:
        moment = datetime.fromisoformat(text).astimezone()
    except ValueError:
        expected = "90m, 12h, 3d or a time such as 2026-01-31T08:00"
        raise argparse.ArgumentTypeError(f"expected {expected}, found {text!r}") from None
    return lambda _now: moment


class Whole:
    """Reads a whole number that is not below ``least``."""

    def __init__(self, least: int) -> None:
        self._least = least

    def __call__(self, text: str) -> int:
        """That number."""
        try:
            number = int(text)
        except ValueError:
            number = self._least - 1
        if number < self._least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {self._least}, found {text!r}")
        return number


def two_names(text: str) -> list[str]:
    """Two names with a comma between them."""
    names = [each.strip() for each in text.split(",")]
    if len(names) != 2 or not all(names):
        raise argparse.ArgumentTypeError(f"expected two names such as consolidate,eager, found {text!r}")
    return names


def metric_name(text: str) -> str:
    """The name of a figure of the operator's."""
    if not re.fullmatch(METRIC_NAME, text):
        raise argparse.ArgumentTypeError(f"expected a name such as accuracy or top-1/acc, found {text!r}")
    return text


def number(text: str) -> float:
    """Any number that is one."""
    value = _float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a number, found {text!r}")
    return value


def positive(text: str) -> float:
    """A number above 0."""
    value = _float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return value


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
