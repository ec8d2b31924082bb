"""Rules that hold for the text of the whole repository."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import infcop

PACKAGE = Path(infcop.__file__).parent
ROOT = PACKAGE.parent.parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

LONGEST = 400
"""Lines of a source file; most have far fewer."""

UNSAFE = {
    *("torch.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader"),
    *("shelve.open", "dill.load", "joblib.load", "os.system"),
    *("eval", "exec", "compile", "__import__"),
}

every_source = pytest.mark.parametrize(
    "source", SOURCES, ids=[str(path.relative_to(PACKAGE)) for path in SOURCES]
)


def names_used(source: str) -> Iterator[str]:
    """Yield every plain or dotted name of a text, imported ones under their full names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name | ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def unsafe_in(source: str) -> set[str]:
    return UNSAFE & set(names_used(source))


@every_source
def test_nothing_unsafe_is_read_or_run(source: Path) -> None:
    assert unsafe_in(source.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import torch\nmodel = torch.load(path)", "torch.load"),
        ("from pickle import loads", "pickle.loads"),
        ("def f():\n    return eval('1')", "eval"),
        ("class A(pickle.Unpickler): ...", "pickle.Unpickler"),
        ("values = map(yaml.load, files)", "yaml.load"),
    ],
)
def test_unsafe_calls_would_be_found(text: str, found: str) -> None:
    assert unsafe_in(text) == {found}


def test_evaluation_mode_is_not_taken_for_eval() -> None:
    assert unsafe_in("model.eval(); pattern = re.compile('a')") == set()


@every_source
def test_arrays_are_never_unpickled(source: Path) -> None:
    allowing = [
        node
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.keyword)
        and (
            (node.arg == "allow_pickle" and ast.unparse(node.value) != "False")
            or (node.arg == "weights_only" and ast.unparse(node.value) != "True")
            or (node.arg == "shell" and ast.unparse(node.value) != "False")
        )
    ]
    assert allowing == []


@every_source
def test_nothing_is_printed(source: Path) -> None:
    """The command line writes through typer, its progress through its own classes."""
    text = source.read_text(encoding="utf-8")
    used = set(names_used(text))
    assert "print" not in used
    if source.name not in ("cli.py", "terminal.py"):
        assert used.isdisjoint({"sys.stdout", "sys.stderr", "sys.exit", "typer.echo"})


@every_source
def test_a_file_stays_short(source: Path) -> None:
    assert len(source.read_text(encoding="utf-8").splitlines()) <= LONGEST


@every_source
def test_postponed_annotations(source: Path) -> None:
    """Type unions in annotations then work in the oldest Python that is supported."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    if any(isinstance(node, ast.FunctionDef | ast.AnnAssign) for node in ast.walk(tree)):
        assert "from __future__ import annotations" in source.read_text(encoding="utf-8")


# Written in parts, since this file is looked at too.
_FORBIDDEN = re.compile(
    r"(?<![\w.~])/(?:" + "|".join(["work", "home", "root", "Users"]) + r")/|" + "index" + "-url"
)


def texts() -> list[Path]:
    """Return the text files that the repository holds."""
    folders = ("docs", "src", "tests", "benchmarks", "examples", ".ci", "changelog.d")
    inside = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    beside = [path for path in ROOT.iterdir() if path.is_file()]
    skipped = {".pyc", ".png", ".gz", ".safetensors"}
    return sorted(
        path
        for path in (*inside, *beside)
        if path.suffix not in skipped and "__pycache__" not in path.parts
    )


def test_the_texts_are_found() -> None:
    names = {str(path.relative_to(ROOT)) for path in texts()}
    assert {"README.md", "Makefile", ".ci/run", "pyproject.toml", "src/infcop/cli.py"} <= names


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_names_a_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    found = [line for line in text.splitlines() if _FORBIDDEN.search(line)]
    assert found == []


def test_a_machine_would_be_found() -> None:
    for path in ("work", "home", "root"):
        assert _FORBIDDEN.search(f"see '/{path}/main'")
    assert _FORBIDDEN.search("pip --index" + "-url somewhere")
    assert not _FORBIDDEN.search("https://example.org/framework/x and ~/home/x")
