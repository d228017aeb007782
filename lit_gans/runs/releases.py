"""The official networks of all papers, also of those that installed packages add."""

from __future__ import annotations

from importlib import import_module

from lit_gans import papers
from lit_gans.official import Release
from lit_gans.runs.classes import load_added


def releases(*others: type) -> list[Release]:
    """`OFFICIAL` of the modules of all papers' classes and of `others`, in their order."""
    classes = [*(getattr(papers, name) for name in papers.__all__), *load_added(), *others]
    modules = dict.fromkeys(cls.__module__ for cls in classes)
    return [release for name in modules for release in vars(import_module(name)).get("OFFICIAL", ())]
