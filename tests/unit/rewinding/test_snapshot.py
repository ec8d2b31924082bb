from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from infcop.core.mask import Masks
from infcop.errors import ModelError, PruningError
from infcop.rewinding.snapshot import Snapshot
from tests.reference import pruning


class Net(nn.Module):
    """Parameters, running statistics, a buffer outside of the state dict, and a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.conv = nn.Conv1d(4, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embed.weight
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("unused", None)

    def forward(self, tokens: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        return self.head(self.norm(self.conv(self.embed(tokens).transpose(1, 2))).mean(dim=2))


def all_values(model: nn.Module) -> dict[str, Tensor]:
    return {n: t.detach().clone() for n, t in [*model.named_parameters(), *model.named_buffers()]}


def train(model: nn.Module, steps: int = 3) -> None:
    generator = torch.Generator().manual_seed(5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    model.train()
    for _ in range(steps):
        tokens = torch.randint(7, (6, 5), generator=generator)
        loss = nn.functional.cross_entropy(model(tokens), tokens[:, 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    train(model, 1)
    return model


MASKS = Masks(
    {
        "conv.weight": (torch.arange(48) % 3 > 0).reshape(4, 4, 3),
        "head.weight": (torch.arange(28) % 2 > 0).reshape(7, 4),
    }
)


def test_everything_comes_back_times_mask(net: Net) -> None:
    saved = all_values(net)
    snapshot = Snapshot.take(net)
    train(net)
    changed = all_values(net)
    assert not any(torch.equal(changed[name], saved[name]) for name in saved)
    snapshot.restore(net, MASKS)
    expected = dict(saved)
    expected["conv.weight"] = pruning.masked(saved["conv.weight"], MASKS["conv.weight"])
    expected["embed.weight"] = pruning.masked(saved["embed.weight"], MASKS["head.weight"])
    restored = all_values(net)
    assert set(restored) == set(expected)
    assert all(torch.equal(restored[name], expected[name]) for name in expected)
    assert {"norm.running_mean", "norm.num_batches_tracked", "steps"} < set(expected)


def test_without_masks_everything_comes_back(net: Net) -> None:
    saved = all_values(net)
    snapshot = Snapshot.take(net)
    train(net)
    snapshot.restore(net)
    assert all(torch.equal(value, saved[name]) for name, value in all_values(net).items())


def test_training_leaves_the_snapshot_untouched(net: Net) -> None:
    saved = all_values(net)
    snapshot = Snapshot.take(net)
    for _ in range(2):
        train(net)
        assert all(torch.equal(snapshot[name], saved[name]) for name in saved)
        snapshot.restore(net, MASKS)
        assert all(torch.equal(snapshot[name], saved[name]) for name in saved)


def test_two_rewinds_equal_one(net: Net) -> None:
    snapshot = Snapshot.take(net)
    train(net)
    snapshot.restore(net, MASKS)
    once = all_values(net)
    snapshot.restore(net, MASKS)
    assert all(torch.equal(value, once[name]) for name, value in all_values(net).items())


def test_training_after_a_rewind_repeats_training_after_the_snapshot(net: Net) -> None:
    snapshot = Snapshot.take(net)
    train(net)
    first = all_values(net)
    snapshot.restore(net)
    train(net)
    assert all(torch.equal(value, first[name]) for name, value in all_values(net).items())


def test_objects_stay_the_same_and_weights_stay_tied(net: Net) -> None:
    snapshot = Snapshot.take(net)
    before = [id(tensor) for tensor in [*net.parameters(), *net.buffers()]]
    flags = [module.training for module in net.eval().modules()]
    snapshot.restore(net, MASKS)
    assert [id(tensor) for tensor in [*net.parameters(), *net.buffers()]] == before
    assert net.head.weight is net.embed.weight
    assert [module.training for module in net.modules()] == flags
    assert all(p.requires_grad and p.is_leaf for p in net.parameters())


def test_tied_weights_are_kept_once_and_other_state_completely(net: Net) -> None:
    snapshot = Snapshot.take(net)
    assert "embed.weight" in snapshot
    assert "head.weight" not in snapshot
    assert set(snapshot) == set(all_values(net))
    assert len({t.data_ptr() for t in snapshot.values()}) == len(snapshot)


@pytest.mark.parametrize("copy", [True, False])
def test_round_trip_through_a_file(net: Net, tmp_path: Path, copy: bool) -> None:
    saved = all_values(net)
    save_file(dict(Snapshot.take(net, copy=copy)), tmp_path / "snapshot.safetensors")
    train(net)
    Snapshot(load_file(tmp_path / "snapshot.safetensors")).restore(net, MASKS)
    assert torch.equal(net.steps, saved["steps"])
    assert torch.equal(
        net.conv.weight.detach(), pruning.masked(saved["conv.weight"], MASKS["conv.weight"])
    )


def test_without_copying_it_holds_the_models_own_tensors(net: Net) -> None:
    snapshot = Snapshot.take(net, copy=False)
    assert snapshot["conv.weight"].data_ptr() == net.conv.weight.data_ptr()
    assert not snapshot["conv.weight"].requires_grad


def test_separate_parameters_on_the_same_memory(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = nn.Parameter(model[0].weight.data)
    saved = model[0].weight.detach().clone()
    snapshot = Snapshot.take(model, copy=False)
    save_file(dict(snapshot), tmp_path / "shared.safetensors")
    mask = torch.eye(3) > 0
    Snapshot(load_file(tmp_path / "shared.safetensors")).restore(model, Masks({"0.weight": mask}))
    assert torch.equal(model[0].weight.detach(), pruning.masked(saved, mask))
    assert torch.equal(model[1].weight, model[0].weight)


def test_channels_last_and_half_precision_values_survive() -> None:
    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last).to(torch.bfloat16)
    saved, strides = conv.weight.detach().clone(), conv.weight.stride()
    snapshot = Snapshot.take(conv)
    assert snapshot["weight"].is_contiguous()
    nn.init.zeros_(conv.weight)
    snapshot.restore(conv)
    assert torch.equal(conv.weight, saved)
    assert conv.weight.stride() == strides


def test_an_expanded_buffer_is_no_obstacle() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("scale", torch.ones(1).expand(4))
    snapshot = Snapshot.take(model)
    nn.init.zeros_(model.weight)
    snapshot.restore(model)
    assert model.weight.count_nonzero() == 4


def test_pruned_entries_are_zero_even_if_the_saved_value_is_not_finite() -> None:
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[float("nan"), -1.0]]))
    snapshot = Snapshot.take(layer)
    snapshot.restore(layer, Masks({"weight": torch.zeros(1, 2, dtype=torch.bool)}))
    assert layer.weight.tolist() == [[0.0, 0.0]]
    assert not layer.weight.signbit().any()


def test_another_model_is_refused(net: Net) -> None:
    snapshot = Snapshot.take(net)
    net.extra = nn.Linear(1, 1)
    with pytest.raises(ModelError, match=r"only the model has 'extra.bias' \(2 such names\)"):
        snapshot.restore(net)
    del net.extra, net.norm
    with pytest.raises(ModelError, match=r"only the snapshot has 'norm.bias' \(5 such names\)"):
        snapshot.restore(net)
    with pytest.raises(ModelError, match=r"'weight' to have shape \(3, 2\).* got \(3, 4\)"):
        Snapshot.take(nn.Linear(2, 3)).restore(nn.Linear(4, 3))


def test_masks_of_another_model_are_refused_before_anything_is_written(net: Net) -> None:
    snapshot = Snapshot.take(net)
    train(net)
    trained = all_values(net)
    with pytest.raises(PruningError, match=r"'conv.wight'.*did you mean 'conv.weight'"):
        snapshot.restore(net, Masks.full({"conv.wight": (4, 4, 3)}))
    with pytest.raises(PruningError, match=r"shape \(4, 4, 3\) for 'conv.weight', got \(4,\)"):
        snapshot.restore(net, Masks.full({"conv.weight": (4,)}))
    assert all(torch.equal(value, trained[name]) for name, value in all_values(net).items())


@pytest.mark.parametrize("name", ["head.weight", "embed.weight"])
def test_only_the_tensors_named_come_back(net: Net, name: str) -> None:
    saved = all_values(net)
    snapshot = Snapshot.take(net)
    train(net)
    trained = all_values(net)
    snapshot.restore(net, MASKS, only=iter(["conv.weight", name]))
    masks = {"conv.weight": MASKS["conv.weight"], "embed.weight": MASKS["head.weight"]}
    expected = pruning.partly_rewound(saved, trained, masks)
    restored = all_values(net)
    assert set(restored) == set(expected)
    assert all(torch.equal(value, expected[name]) for name, value in restored.items())


def test_pruned_entries_are_zero_whatever_comes_back(net: Net) -> None:
    snapshot = Snapshot.take(net)
    train(net)
    trained = all_values(net)
    snapshot.restore(net, MASKS, only=["norm.running_mean"])
    assert torch.equal(net.norm.running_mean, snapshot["norm.running_mean"])
    assert torch.equal(
        net.conv.weight.detach(), pruning.masked(trained["conv.weight"], MASKS["conv.weight"])
    )


def test_unknown_names_are_refused_before_anything_is_written(net: Net) -> None:
    snapshot = Snapshot.take(net)
    train(net)
    trained = all_values(net)
    with pytest.raises(ModelError, match=r"got 'conv.wight'; did you mean 'conv.weight'"):
        snapshot.restore(net, only=["embed.weight", "conv.wight"])
    assert all(torch.equal(value, trained[name]) for name, value in all_values(net).items())
