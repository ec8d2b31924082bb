"""The documentation runs, its links lead somewhere, and its tables say what the code says.

Of each Markdown file the blocks are taken in order, in a folder of their own with a copy of
``examples``: Python is executed in one namespace, warnings being errors; lines of ``sh`` that
start with ``infcop`` are executed; YAML must be the settings of a run or of a comparison. A block
of Python or YAML whose first line is ``# NAME.py`` or ``# NAME.yaml`` is saved under that name
first. A comment ``<!-- not run: reason -->`` above a block leaves it out.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import sys
import textwrap
import types
import typing
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from infcop.cli import app, main
from infcop.core.config import RunConfig
from infcop.core.method import (
    AnyOf,
    FixedBudget,
    InformationFlow,
    MethodConfig,
    Schedule,
    StopConfig,
)
from infcop.core.rate import Rate
from infcop.core.records import StopReason
from infcop.core.validation import merged
from infcop.data.sets import DATA_SETS
from infcop.methods import METHODS
from infcop.models.zoo import ZOO
from infcop.pipeline.configure import resolve_config
from infcop.pipeline.store import RunStore
from infcop.study.configure import resolve_comparison

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "examples", "benchmarks", "configs")
PAGES = sorted([*ROOT.glob("*.md"), *(p for f in FOLDERS for p in (ROOT / f).rglob("*.md"))])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

LANGUAGES = {"python", "sh", "yaml", "json", "text", ""}
"""One name for each language: a block of ``bash`` or ``py`` would not be looked at."""

NOT_EXECUTED = {"make", "pip", "cd", "git", "python", "python3", "export", "source", "pytest"}


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is that of its fence, ``not_run`` the reason to leave it out."""

    language: str
    text: str
    line: int
    not_run: str | None


_FENCE = re.compile(r"\s*```(?P<language>\S*)\s*")
_NOT_RUN = re.compile(r"<!-- not run:(?P<reason>.*)-->")
_FILE = re.compile(r"# (?P<name>[\w-]+\.(?:py|yaml))\s*")


def blocks_of(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a Markdown text."""
    opened: re.Match[str] | None = None
    not_run: str | None = None
    body: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        fence = _FENCE.fullmatch(line)
        if opened is None and fence:
            opened, body = fence, []
        elif opened is None and line.strip():
            found = _NOT_RUN.fullmatch(line.strip())
            not_run = found["reason"].strip() if found else None
        elif fence and opened is not None:
            content = textwrap.dedent("\n".join(body))
            yield Block(opened["language"], content, number - len(body) - 1, not_run)
            opened, not_run = None, None
        else:
            body.append(line)
    assert opened is None, "a block is not closed"


def commands_of(block: Block) -> list[list[str]]:
    """Return the commands of a block of ``sh``, split into words as a shell does."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


# -- the blocks run ------------------------------------------------------------------------------


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder to run in, and forget what was imported from it."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INFCOP_DATA", raising=False)
    before, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    torch.set_num_threads(1)  # the fastest for networks as small as these
    yield tmp_path
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, before)
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.parametrize("name", NAMES)
def test_blocks_run(name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, Any] = {"__name__": "documentation"}
    for block in blocks_of((ROOT / name).read_text(encoding="utf-8")):
        place = f"{name}, line {block.line}"
        assert block.language in LANGUAGES, f"{place}: expected one of {sorted(LANGUAGES)}"
        if block.not_run is not None:
            assert block.not_run, f"{place}: say why the block is not run"
            continue
        save_if_named(block, workplace)
        if block.language == "python":
            # The empty lines make a traceback show the line of the page.
            code = compile("\n" * block.line + block.text, str(ROOT / name), "exec", 0, True)
            exec(code, namespace)
        elif block.language == "yaml":
            settings = yaml.safe_load(block.text)
            (resolve_comparison if "methods" in settings else resolve_config)(settings)
        elif block.language == "sh":
            for words in commands_of(block):
                run_command(words, place, monkeypatch)


def save_if_named(block: Block, folder: Path) -> None:
    named = _FILE.fullmatch(block.text.partition("\n")[0])
    if named and block.language in ("python", "yaml"):
        (folder / named["name"]).write_text(block.text + "\n", encoding="utf-8")


def run_command(words: list[str], place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = f"{place}: {shlex.join(words)}"
    assert not {"|", "||", "&&", ";", "&", ">", "<"} & set(words), f"{told}: one command a line"
    if words[0] == "infcop":
        monkeypatch.setattr(sys, "argv", words)
        monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 0, told
        return
    assert words[0] in NOT_EXECUTED, f"{told}: expected infcop or one of {sorted(NOT_EXECUTED)}"
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        assert set(targets) <= make_targets(), told
    if words[0] in ("python", "python3"):
        assert exists_to_run(words[1:]), told


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z][\w-]*):", text, flags=re.MULTILINE))


def exists_to_run(words: Sequence[str]) -> bool:
    """Whether ``python WORDS`` names a file of the repository or a module."""
    if words[0] != "-m":
        return (ROOT / words[0]).is_file()
    inside = (ROOT / words[1].replace(".", "/")).with_suffix(".py")
    return inside.is_file() or find_spec(words[1].partition(".")[0]) is not None


def test_blocks_are_found_as_written() -> None:
    text = """
<!-- not run: needs a download -->

```sh
infcop data  # comment
make \\
  demo
```

    and
  ```python
  x = 1
  ```
"""
    first, second = blocks_of(text)
    assert (first.language, first.line, first.not_run) == ("sh", 4, "needs a download")
    assert commands_of(first) == [["infcop", "data"], ["make", "demo"]]
    assert second == Block("python", "x = 1", 11, None)


def test_make_targets_are_found() -> None:
    assert {"demo", "test", "check"} <= make_targets()
    assert "PYTHON" not in make_targets()


# -- links ---------------------------------------------------------------------------------------

_CODE = re.compile(r"^\s*```.*?^\s*```\s*$|`[^`\n]*`", flags=re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(<?([^)\s>]+)|(?:src|href)=\"([^\"]+)\"|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*$", flags=re.MULTILINE)


def links_of(text: str) -> list[str]:
    """Return the targets of links and images, those in code left out."""
    return ["".join(found) for found in _LINK.findall(_CODE.sub("", text))]


def anchors_of(text: str) -> set[str]:
    """Return the anchors that headings get, as GitHub makes them."""
    without_blocks = re.sub(r"^\s*```.*?^\s*```\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    kept = (re.sub(r"[^\w\- ]", "", found.lower()) for found in _HEADING.findall(without_blocks))
    return {heading.replace(" ", "-") for heading in kept}


def broken_links(page: Path, root: Path = ROOT) -> list[str]:
    broken = []
    for target in links_of(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        lost = not file.exists() or not file.is_relative_to(root)
        if lost or (anchor and anchor not in anchors_of(file.read_text(encoding="utf-8"))):
            broken.append(target)
    return broken


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    assert broken_links(ROOT / name) == []


def test_a_broken_link_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, c\n[x](#a-b-c) [y](#d) ![z](z.png) [![i](i.svg)](https://e.org) `[n](n)`\n"
        '<img src="w.png">\n\n[r]: r.md\n\n```text\n[t](t)\n```\n'
    )
    assert broken_links(page, tmp_path) == ["#d", "z.png", "i.svg", "w.png", "r.md"]


# -- the reference of settings -------------------------------------------------------------------

CONFIGURATION = ROOT / "docs" / "guides" / "configuration.md"
REQUIRED = "required"

STOP_RULES: tuple[type[BaseModel], ...] = typing.get_args(typing.get_args(StopConfig)[0])
SCHEDULES: tuple[type[BaseModel], ...] = typing.get_args(typing.get_args(Schedule)[0])
RATES: tuple[type[BaseModel], ...] = typing.get_args(typing.get_args(Rate)[0])
Row = dict[str, str]


def tables_of(text: str) -> dict[tuple[str, ...], list[Row]]:
    """Return the rows of all tables, by the names of their columns."""
    tables: dict[tuple[str, ...], list[Row]] = {}
    header: tuple[str, ...] | None = None
    for line in text.splitlines():
        cells = [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            header = None
        elif header is None:
            header = tuple(cells)
        elif not set(line) <= set("|-: "):
            tables.setdefault(header, []).append(dict(zip(header, cells, strict=True)))
    return tables


def default_of(field: FieldInfo) -> Any:
    if field.is_required():
        return REQUIRED
    value = field.get_default()
    return list(value) if isinstance(value, tuple) else value


def settings_of(cls: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Return every key of settings with its default, nested ones with dots."""
    found: dict[str, Any] = {}
    for name, field in cls.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found |= settings_of(inner, f"{prefix}{name}.")
        else:
            found[prefix + name] = default_of(field)
    return found


def flattened(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, dict)
        found |= flattened(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return found


def documented(columns: tuple[str, ...], value: str = "default") -> dict[Any, Any]:
    """Return what a table of the page gives for each key, which it must name once."""
    rows = tables_of(CONFIGURATION.read_text(encoding="utf-8"))[columns]
    first = columns[: columns.index("key") + 1]
    keys = [tuple(row[column] for column in first) for row in rows]
    assert len(set(keys)) == len(keys)
    return {
        key if len(key) > 1 else key[0]: "-" if row[value] == "-" else yaml.safe_load(row[value])
        for key, row in zip(keys, rows, strict=True)
    }


def test_every_setting_is_documented_with_its_default() -> None:
    real = {k: v for k, v in settings_of(RunConfig).items() if not k.startswith("method.")}
    real["method"] = resolve_config({}).method.name
    assert documented(("key", "default", "meaning")) == real


def test_the_axes_of_every_named_method_are_documented() -> None:
    rows = tables_of(CONFIGURATION.read_text(encoding="utf-8"))[("method", "what it sets")]
    assert [row["method"] for row in rows] == list(METHODS)
    for row in rows:
        name = row["method"]
        base = MethodConfig(name=name).model_dump()
        axes = merged(base, yaml.safe_load(row["what it sets"]))
        assert MethodConfig.model_validate(axes) == METHODS[name].build(), name


def test_every_axis_is_documented_with_its_default() -> None:
    """Of an axis with variants the name of the default one; their keys have tables of their own."""
    real = flattened(MethodConfig(name="mine").model_dump(mode="json"), "method.")
    variants = {"method.schedule.": "kind", "method.rate.": "kind", "method.stop.": "rule"}
    inner = {key for key in real for at, word in variants.items() if key.startswith(at)}
    inner -= {at + word for at, word in variants.items()}
    expected = {key: value for key, value in real.items() if key not in {*inner, "method.name"}}
    assert documented(("key", "by default", "meaning"), "by default") == expected


@pytest.mark.parametrize(
    ("column", "classes"), [("rule", STOP_RULES), ("kind", (*SCHEDULES, *RATES))]
)
def test_every_variant_is_documented(column: str, classes: tuple[type[BaseModel], ...]) -> None:
    real = {}
    for cls in classes:
        fields = settings_of(cls)
        name = fields.pop(column)
        real |= {(name, key): default for key, default in fields.items()}
    assert documented((column, "key", "default", "meaning")) == real


def choices_in(annotation: Any) -> Iterator[str]:
    """Yield the words of every ``Literal`` in a type, those of nested settings included."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for field in annotation.model_fields.values():
            yield from choices_in(field.annotation)
    for argument in typing.get_args(annotation):
        yield from [argument] if isinstance(argument, str) else choices_in(argument)


def test_every_choice_is_named() -> None:
    text = CONFIGURATION.read_text(encoding="utf-8")
    # Rules made of rules would lead round in circles; their names are those of their table.
    simple = [cls for cls in STOP_RULES if not {"rules", "of"} & set(cls.model_fields)]
    axes = [field.annotation for n, field in MethodConfig.model_fields.items() if n != "stop"]
    groups = [field.annotation for n, field in RunConfig.model_fields.items() if n != "method"]
    choices = {word for one in (*groups, *axes, *simple) for word in choices_in(one)}
    assert {"cosine", "learning-rate", "main-path", "absolute", "plateau", "sap"} <= choices
    assert [choice for choice in sorted(choices) if f"`{choice}`" not in text] == []


def test_tables_and_settings_are_read_as_written() -> None:
    rows = tables_of(
        "| key | default |\n| --- | --- |\n| `a.b` | 0.05 |\n\n| rule |\n|--|\n| c |\n"
    )
    assert rows == {
        ("key", "default"): [{"key": "a.b", "default": "0.05"}],
        ("rule",): [{"rule": "c"}],
    }
    assert settings_of(RunConfig)["training.milestones"] == [0.5, 0.75]
    assert settings_of(InformationFlow)["epsilon"] == REQUIRED
    assert {FixedBudget, InformationFlow, AnyOf} < set(STOP_RULES)


COMBINATIONS = {"any-of", "all-of", "at-least", "at-most"}
"""They share a card."""

# -- nothing is left out -------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_card(name: str) -> None:
    card = (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}")


@pytest.mark.parametrize(
    "rule", sorted({rule.model_fields["rule"].default for rule in STOP_RULES} - COMBINATIONS)
)
def test_every_stop_rule_has_a_card(rule: str) -> None:
    folder = ROOT / "docs" / "methods" / "rules"
    name = rule.removeprefix("relative-")
    card = (folder / f"{name}.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {name}")
    assert f"]({name}.md)" in (folder / "README.md").read_text(encoding="utf-8")


def pages_together() -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


@pytest.mark.parametrize("name", [*DATA_SETS, *ZOO, *(reason.value for reason in StopReason)])
def test_every_name_is_documented(name: str) -> None:
    assert f"`{name}`" in pages_together()


def test_every_command_is_shown() -> None:
    functions = [command.callback for command in app.registered_commands]
    names = [f.__name__ for f in functions if isinstance(f, types.FunctionType)]
    assert len(names) == len(functions) >= 5
    assert [name for name in names if f"infcop {name}" not in pages_together()] == []


def test_every_file_of_a_run_folder_is_explained(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    files = [path.relative_to(tmp_path).as_posix() for path in vars(store).values()]
    text = (ROOT / "docs" / "guides" / "run-folder.md").read_text(encoding="utf-8")
    assert [file for file in files if file != "." and f"`{file}`" not in text] == []
