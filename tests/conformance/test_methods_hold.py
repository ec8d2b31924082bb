"""What every named method keeps to, as it is, from end to end."""

from __future__ import annotations

import inspect
import json
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import infcop
from infcop.cli import main
from infcop.core.records import RunRecord
from infcop.methods import METHODS
from infcop.pipeline.progress import LoggedProgress
from tests.end_to_end.conftest import Unplugged, toy_batches, toy_model
from tests.end_to_end.test_search import same_tensors, without_time
from tests.reference.axis_networks import shapes_of
from tests.reference.axis_twins import largest_group

ROOT = Path(__file__).parents[2]
LONGEST = 40
"""Lines of the file of a method: it fills in axes, and holds no mathematics."""
DENSITY = 0.6
SETTINGS: dict[str, Any] = {
    "density": DENSITY,
    # Long and slow enough for an early bird.
    "dense": {"passes": 6},
    "training": {"lr": 0.01},
    "levels": {"max_passes": 1, "unit": 0.5, "evaluate": "ends"},
    # Long enough for masks to move before a place that is gone back to.
    "final": {"passes": 3},
}

every_method = pytest.mark.parametrize("name", METHODS)


def run(folder: str, name: str, *, checkpoints: bool, **changes: Any) -> infcop.Result:
    task = infcop.Classification(toy_batches(2), toy_batches(1, seed=1), toy_batches(1, seed=2))
    model = toy_model()
    # What was drawn before must not matter.
    torch.manual_seed(len(folder))
    seconds = 0 if checkpoints else 1000
    execution = {"device": "cpu", "threads": 1, "checkpoint_seconds": seconds}
    settings = {**SETTINGS, "execution": execution, **changes}
    return infcop.search(model, task, run_dir=folder, method=name, **settings)


@cache
def whole(name: str, seed: int = 0) -> infcop.Result:
    with TemporaryDirectory() as folder:
        return run(folder, name, checkpoints=False, seed=seed)


class Interrupting(LoggedProgress):
    """Takes the process away in a phase of this title, once it has made so many steps."""

    def __init__(self, title: str, steps: int) -> None:
        self._title, self._steps = title, steps
        self._here = False

    def begin(self, title: str, steps: int, done: int) -> None:
        self._here = title.startswith(self._title)

    def step(self, done: int) -> None:
        if self._here and done >= self._steps:
            raise Unplugged


def places(record: RunRecord) -> dict[str, int]:
    """Return the titles of phases that train, and steps in the middle of them."""
    found = {}
    if record.dense.cost.training:
        found["dense network"] = 9
    trained = [level for level in record.levels if level.passes > 0]
    if trained:
        level = trained[len(trained) // 2]
        found[f"level {level.level},"] = max(round(level.passes * 2), 1)
    if record.final is not None:
        found["final training"] = 5
    return found


def check_checkpoint(folder: Path) -> None:
    """Check that neither the weights nor the momentum of pruned entries outlive them."""
    state = load_file(folder / "checkpoints" / "latest.safetensors")
    for place, (layer, _) in enumerate(toy_model().named_parameters()):
        gone = ~state.get(f"mask.{layer}", torch.tensor(True))
        momentum = state.get(f"optimizer.{place}.momentum_buffer")
        for value in (state[f"model.{layer}"], *([] if momentum is None else [momentum])):
            assert not bool(value[gone.expand(value.shape)].any()), layer


def told(record: RunRecord) -> dict[str, Any]:
    """Return a record without times, and without how often it was saved."""
    plain = without_time(record)
    assert plain["config"].pop("execution")
    return plain


# -- in a search -----------------------------------------------------------------------------------


@every_method
def test_a_search_ends_at_its_density_with_a_plain_sparse_network(name: str) -> None:
    result = whole(name)
    method, asked = METHODS[name].build(), round(DENSITY * result.outcome.prunable)
    slack = (
        largest_group(method.pattern, toy_model()) if method.pattern.kind != "unstructured" else 1
    )
    assert asked - slack < result.outcome.kept <= asked
    assert result.outcome.kept == result.masks.kept
    plain = toy_model(seed=5)
    assert type(result.model) is type(plain)
    plain.load_state_dict(result.model.state_dict(), strict=True)
    assert dict(result.masks).keys() == shapes_of(plain).keys()
    for layer, mask in result.masks.items():
        weight = plain.get_parameter(layer).detach()
        assert bool((weight[~mask] == 0).all())
        assert bool(weight[mask].any())
    for ours, theirs in zip(result.model.modules(), plain.modules(), strict=True):
        assert set(vars(ours)) == set(vars(theirs))
    assert all(bool(value.isfinite().all()) for value in result.model.state_dict().values())


@every_method
def test_its_record_adds_up(name: str) -> None:
    result = whole(name)
    record = result.record
    assert record.config["method"]["name"] == name
    assert record.warnings == ()
    alive = result.outcome.prunable
    for level in record.levels:
        assert level.stopped_by is not None
        assert level.stopped_by.stop
        assert level.removed == alive - level.kept > 0
        assert sum(level.kept_per_layer.values()) == level.kept
        alive = level.kept
    assert alive == result.outcome.kept
    phases = [record.dense, *record.levels, *([record.final] if record.final else [])]
    assert sum(phase.cost.training for phase in phases) == result.outcome.cost.training


@every_method
def test_a_search_is_the_same_bit_for_bit_after_an_interruption_of_each_phase(
    tmp_path: Path, name: str
) -> None:
    expected, method = whole(name), METHODS[name].build()
    planned = places(expected.record)
    # What there is to go on with: each phase, masks that have moved, an early bird's history.
    assert "final training" in planned
    assert ("dense network" in planned) == (method.start.kind != "initialisation")
    assert expected.record.final is not None
    assert (expected.record.final.exchanged > 0) == (method.regrow is not None)
    assert (expected.record.dense.stopped_by is not None) == (method.start.kind != "trained")
    for title, steps in planned.items():
        with pytest.raises(Unplugged):
            run(str(tmp_path), name, checkpoints=True, progress=Interrupting(title, steps))
        check_checkpoint(tmp_path)
    result = run(str(tmp_path), name, checkpoints=True)
    assert same_tensors(result.model, expected.model)
    assert all(torch.equal(result.masks[layer], mask) for layer, mask in expected.masks.items())
    assert told(result.record) == told(expected.record)


@every_method
def test_another_seed_gives_another_network(name: str) -> None:
    first, second = whole(name), whole(name, seed=1)
    # All train with dropout, and so in another way.
    assert not same_tensors(first.model, second.model)
    assert first.outcome.kept == second.outcome.kept
    if METHODS[name].build().score.kind == "random":
        assert any(not torch.equal(first.masks[n], mask) for n, mask in second.masks.items())


# -- around it -------------------------------------------------------------------------------------


@every_method
def test_it_is_a_short_composition_in_a_file_of_its_own(name: str) -> None:
    source = inspect.getsourcefile(METHODS[name].build)
    assert source is not None
    path = Path(source)
    assert path.parent == ROOT / "src" / "infcop" / "methods"
    assert path.name != "__init__.py"
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{path.name} has {lines} lines, of at most {LONGEST}"


@every_method
def test_it_has_a_card_that_the_overview_links_to(name: str) -> None:
    cards = ROOT / "docs" / "methods"
    card = cards / f"{name}.md"
    assert card.is_file(), f"write the card docs/methods/{name}.md"
    assert card.read_text(encoding="utf-8").startswith(f"# {name}")
    overview = (cards / "README.md").read_text(encoding="utf-8")
    assert f"| [{name}]({name}.md) |" in overview, "add its row to docs/methods/README.md"


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """Run the command line in this process and return what it printed."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    before = signal.getsignal(signal.SIGTERM)

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["infcop", *words])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 0
        return capsys.readouterr().out

    yield run
    signal.signal(signal.SIGTERM, before)


def test_the_command_line_lists_every_method_in_a_line(command: Callable[..., str]) -> None:
    lines = command("methods").splitlines()
    assert [line.split()[0] for line in lines] == list(METHODS)
    for line, (name, method) in zip(lines, METHODS.items(), strict=True):
        assert line.split(maxsplit=1) == [name, method.summary]
    listed = json.loads(command("methods", "--json"))
    assert listed == {name: method.summary for name, method in METHODS.items()}
