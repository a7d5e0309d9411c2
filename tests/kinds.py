"""Cases of a kind: the ones that prove the kind run with each change, all of them where `exhaustive` is asked for."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def of_a_kind(cases: Iterable[Any], proven_by: Collection[Any]) -> list[Any]:
    """Parameters for `pytest.mark.parametrize`; every one of `cases` that is none of `proven_by` is exhaustive."""
    listed = list(cases)
    unknown = [case for case in proven_by if case not in listed]
    assert not unknown, f"no such cases: {unknown}"
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=[] if case in proven_by else [pytest.mark.exhaustive],
        )
        for case in listed
    ]
