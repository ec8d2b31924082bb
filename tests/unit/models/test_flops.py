from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from infcop.errors import ModelError
from infcop.models.flops import multiply_adds


class Twice(nn.Module):
    """Calls one layer twice, under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.again = nn.Linear(4, 4, bias=False)

    def forward(self, x):
        return self.again(torch.relu(self.first(x)))


def test_layers_that_can_be_counted_by_hand() -> None:
    cases = [
        (nn.Linear(5, 3), (torch.ones(2, 5),), 5 * 3),
        (nn.Linear(5, 3), (torch.ones(2, 7, 5),), 7 * 5 * 3),
        (nn.Conv2d(4, 6, 3, groups=2), (torch.ones(2, 4, 5, 6),), 6 * 2 * 9 * 3 * 4),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), (torch.ones(2, 4, 5, 5),), 4 * 9 * 25),
        (nn.ConvTranspose1d(3, 2, 4, stride=2), (torch.ones(2, 3, 5),), 3 * 2 * 4 * 5),
        (nn.LSTM(4, 5, batch_first=True), (torch.ones(3, 7, 4),), 7 * 20 * (4 + 5)),
        (nn.Sequential(), (torch.ones(2, 5),), 0),
    ]
    for model, inputs, expected in cases:
        assert multiply_adds(model, inputs).total == expected, model


def test_attention_counts_all_pairs_of_positions_however_it_runs() -> None:
    tokens, width, hidden = 6, 8, 16
    layer = nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True).eval()
    expected = tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width
    assert multiply_adds(layer, (torch.ones(3, tokens, width),)).total == expected

    class Bare(nn.Module):
        def forward(self, x):
            return functional.scaled_dot_product_attention(x, x, x, is_causal=True)

    assert multiply_adds(Bare(), (torch.ones(3, 2, tokens, 4),)).total == 2 * 2 * tokens**2 * 4
    assert torch.backends.mha.get_fastpath_enabled()


def test_products_with_vectors_count_too() -> None:
    class Vectors(nn.Module):
        def forward(self, matrix, vector):
            return matrix.mv(vector).dot(vector[:3]), torch.addmv(vector[:3], matrix, vector)

    count = multiply_adds(Vectors(), (torch.ones(3, 4), torch.ones(4)), examples=1)
    assert count.total == 12 + 3 + 12
    assert dict(count.uncounted) == {}


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_the_batch_does_not_matter(batch: int) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    count = multiply_adds(model, (torch.ones(batch, 1, 4, 4),))
    assert count.by_module == {"": 176, "0": 144, "3": 32}


def test_a_layer_called_twice_counts_twice_under_its_first_name() -> None:
    count = multiply_adds(nn.Sequential(Twice()), (torch.ones(2, 4),))
    assert count.by_module == {"": 32, "0": 32, "0.first": 32}
    assert dict(count.uncounted) == {"relu": 1}


def test_zeros_count_like_other_weights() -> None:
    model = nn.Linear(4, 4)
    nn.init.zeros_(model.weight)
    assert multiply_adds(model, (torch.ones(2, 4),)).total == 16


def test_views_are_free_and_all_else_is_named() -> None:
    class Views(nn.Module):
        def forward(self, x):
            x = x.view(2, 6).t().unsqueeze(0).expand(3, 6, 2)[..., :1].detach()
            x = x.squeeze_(2)
            return torch.cat([x, x]).softmax(dim=-1) + torch.empty(6, 6).fill_(2)

    count = multiply_adds(Views(), (torch.ones(2, 2, 3),))
    assert dict(count.uncounted) == {"_softmax": 1, "add": 1, "cat": 1, "fill": 1}
    assert count.total == 0


def test_the_model_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first = multiply_adds(model, (torch.randn(4, 3, generator=torch.Generator()),))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert first == multiply_adds(model, (torch.ones(4, 3),))


def test_keyword_inputs_and_wrappers() -> None:
    model = nn.DataParallel(nn.Linear(3, 2))
    assert multiply_adds(model, {"input": torch.ones(4, 3)}).by_module == {"": 6}


def test_what_is_computed_once_is_spread_over_the_examples() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.ones(4, 4))

        def forward(self, x):
            return x @ (self.a @ self.a)

    assert multiply_adds(Shared(), (torch.ones(8, 4),)).total == 16 + 64 // 8


def test_wrong_inputs_are_explained() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ModelError, match="expected a model that runs on the example inputs"):
        multiply_adds(model, (torch.ones(2, 4),))
    with pytest.raises(ModelError, match="first dimension counts examples, got none"):
        multiply_adds(model, (3,))
    with pytest.raises(ModelError, match="at least one example, got 0"):
        multiply_adds(model, (torch.ones(0, 3),))
    with pytest.raises(ModelError, match="tuple of positional arguments"):
        multiply_adds(model, torch.ones(2, 3))
    assert torch._C._get_mkldnn_enabled()
