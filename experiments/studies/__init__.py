"""The studies, one module each, found by their file name.

A module ``glue_rte.py`` defines ``study()``, which returns the study named ``glue-rte``. Results
refer to a study for good: to change one that has results, add a new one.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil

from experiments.errors import BenchError
from experiments.study import Study


def names() -> list[str]:
    """Names of all studies, sorted."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name.replace("_", "-") for name in modules)


def load(name: str) -> Study:
    """The study of that name.

    Raises:
        BenchError: there is none; names those there are.
        ValueError: the module returns a study of another name.
    """
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        raise BenchError(f"unknown study {name!r}{hint} Known: {', '.join(known)}")
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    study: Study = module.study()
    if study.name != name:
        raise ValueError(f"{module.__name__} returns the study {study.name!r}: expected {name!r}")
    return study
