"""Rules that hold for the text of the whole repository."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import infcop

PACKAGE = Path(infcop.__file__).parent
ROOT = Path(__file__).parents[2]

LONGEST = 400
"""Lines of a source file; most have far fewer."""

UNSAFE = {
    *("torch.load", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.loads"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader"),
    *("shelve.open", "dill.load", "joblib.load", "os.system"),
    *("eval", "exec", "compile", "__import__"),
}

SOURCES = {
    str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8")
    for path in sorted(PACKAGE.rglob("*.py"))
}


def names_used(source: str) -> Iterator[str]:
    """Yield every plain or dotted name of a text, imported ones under their full names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name | ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def unsafe_in(source: str) -> set[str]:
    return UNSAFE & set(names_used(source))


def test_nothing_unsafe_is_read_or_run() -> None:
    assert len(SOURCES) > 50
    assert {name: found for name, text in SOURCES.items() if (found := unsafe_in(text))} == {}


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


SAFE_VALUES = {"allow_pickle": "False", "weights_only": "True", "shell": "False"}


def test_arrays_are_never_unpickled_and_no_shell_is_called() -> None:
    found = [
        f"{name}: {ast.unparse(node)}"
        for name, text in SOURCES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.keyword)
        and ast.unparse(node.value) != SAFE_VALUES.get(node.arg or "", ast.unparse(node.value))
    ]
    assert found == []


def test_nothing_is_printed() -> None:
    """The command line writes through typer, its progress through its own classes."""
    writers = {"print", "sys.stdout", "sys.stderr", "sys.exit", "typer.echo"}
    used = {name: writers & set(names_used(text)) for name, text in SOURCES.items()}
    allowed = {
        "cli.py": writers - {"print"},
        "cli_networks.py": {"typer.echo"},
        "terminal.py": {"sys.stderr"},
    }
    assert [name for name in SOURCES if used[name] - allowed.get(name, set())] == []


def test_files_stay_short() -> None:
    lengths = {name: len(text.splitlines()) for name, text in SOURCES.items()}
    assert {name: length for name, length in lengths.items() if length > LONGEST} == {}


def test_annotations_are_postponed() -> None:
    """Unions of types in annotations then cost nothing and work in every supported Python."""
    postponed = "from __future__ import annotations"
    bare = [
        name
        for name, text in SOURCES.items()
        if postponed not in text
        and any(isinstance(n, ast.FunctionDef | ast.AnnAssign) for n in ast.walk(ast.parse(text)))
    ]
    assert bare == []


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


def test_no_text_names_a_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in texts()
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if _FORBIDDEN.search(line)
    ]
    assert found == []


def test_a_machine_would_be_found() -> None:
    for path in ("work", "home", "root"):
        assert _FORBIDDEN.search(f"see '/{path}/main'")
    assert _FORBIDDEN.search("pip --index" + "-url somewhere")
    assert not _FORBIDDEN.search("https://example.org/framework/x and ~/home/x")
