"""Every public name can be imported, is documented, and shows an example that runs."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import inspect
from pathlib import Path

import pytest

import infcop
from infcop.core.values import Value
from tests.reference.imports import modules_of

PACKAGE = Path(infcop.__file__).parent
MODULES = modules_of(PACKAGE)

TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}

SHOWN_BY_SEARCH = {"Result"}
"""Takes a whole search to make: the example of ``search`` shows it."""


def public_of(module: str) -> list[str] | None:
    """Return what a module's ``__all__`` says in its text."""
    for node in TREES[module].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def definitions_of(module: str) -> list[ast.FunctionDef | ast.ClassDef]:
    """Return the functions and classes at a module's top level."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [node for node in TREES[module].body if isinstance(node, kinds)]


def test_public_names_are_sorted_and_have_a_home() -> None:
    assert infcop.__all__ == sorted(infcop.__all__)
    assert set(infcop.__all__) == set(infcop._HOMES)
    assert dir(infcop) == infcop.__all__


@pytest.mark.parametrize("name", infcop.__all__)
def test_a_public_name_comes_from_its_home(name: str) -> None:
    home = importlib.import_module(f"infcop.{infcop._HOMES[name]}")
    assert name in home.__all__
    assert getattr(infcop, name) is getattr(home, name)


def test_type_checkers_see_the_same_homes() -> None:
    told = {
        alias.name: node.module
        for node in ast.walk(TREES["infcop"])
        if isinstance(node, ast.ImportFrom) and node.module.startswith("infcop.")
        for alias in node.names
    }
    assert told == {name: f"infcop.{home}" for name, home in infcop._HOMES.items()}


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'infcop' has no attribute 'serach'"):
        _ = infcop.serach


@pytest.mark.parametrize("name", infcop.__all__)
def test_a_public_name_is_documented(name: str) -> None:
    thing = getattr(infcop, name)
    if not callable(thing):  # a table
        return
    documentation = inspect.getdoc(thing) or ""
    assert documentation.splitlines()[0].endswith(".")
    if name not in SHOWN_BY_SEARCH and not is_plain_value(thing):
        examples = doctest.DocTestParser().get_examples(documentation)
        assert examples, f"infcop.{name} shows no example"


def is_plain_value(thing: object) -> bool:
    """Whether a class only holds fields or states a contract: its fields are documented."""
    if not isinstance(thing, type):
        return False
    is_protocol = bool(getattr(thing, "_is_protocol", False))
    return issubclass(thing, Value) or dataclasses.is_dataclass(thing) or is_protocol


def test_public_methods_are_documented() -> None:
    for name in infcop.__all__:
        thing = getattr(infcop, name)
        members = vars(thing).items() if isinstance(thing, type) else ()
        for member, value in members:
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                assert inspect.getdoc(value), f"infcop.{name}.{member}"


def test_every_module_says_what_it_is_for() -> None:
    first_lines = {m: (ast.get_docstring(TREES[m]) or "").partition("\n")[0] for m in MODULES}
    assert [module for module, line in first_lines.items() if not line.rstrip(":").strip()] == []


def test_every_module_lists_its_public_names() -> None:
    """But for those with nothing to list: packages of modules, and the start of ``python -m``."""
    silent = {module for module in MODULES if public_of(module) is None}
    assert [module for module in sorted(silent) if definitions_of(module)] == []
    for module in sorted(set(MODULES) - silent):
        public = public_of(module)
        imported = importlib.import_module(module)
        assert len(set(public)) == len(public), module
        assert [n for n in public if n.startswith("_") or not hasattr(imported, n)] == [], module


def test_what_a_module_lists_is_documented() -> None:
    bare = [
        f"{module}.{node.name}"
        for module in MODULES
        for node in definitions_of(module)
        if node.name in (public_of(module) or []) and not ast.get_docstring(node)
    ]
    assert bare == []


def test_no_private_name_is_imported_from_another_module() -> None:
    private = [
        f"{module} imports {node.module}.{alias.name}"
        for module in MODULES
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("infcop")
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert private == []
