from __future__ import annotations

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from musubi.core.errors import ConfigError, WeightsError
from musubi.networks.adapters import AdapterSet
from musubi.networks.file import LoRAFile
from musubi.networks.loha import LoHa
from musubi.networks.lokr import LoKr
from musubi.networks.lora import DoRA, LoRA
from musubi.networks.network import AdapterNetwork
from musubi.networks.rules import Rule
from musubi.networks.targets import Targets
from tests.networks.small import KEYS, NAMES, Small, make_set, trained


def _forwards(model: nn.Module) -> list[object]:
    return [
        (module._forward_hooks.copy(), type(module).forward, vars(module).get("forward")) for module in model.modules()
    ]


def test_there_is_one_adapter_for_each_original_module() -> None:
    adapters = make_set(Small())

    assert adapters.names == NAMES
    assert len(list(adapters.parameters())) == 2 * len(NAMES)
    assert all(p.dtype == torch.float32 and p.requires_grad for p in adapters.parameters())


def test_fresh_adapters_change_nothing(model: Small, x: Tensor) -> None:
    adapters, before = make_set(model), model(x)

    with adapters.attached(model):
        assert torch.equal(model(x), before)

    assert adapters.zero_effect


def test_trained_adapters_change_the_output_while_attached(model: Small, x: Tensor) -> None:
    adapters, before = trained(make_set(model)), model(x)

    with adapters.attached(model):
        assert not torch.allclose(model(x), before)

    assert torch.equal(model(x), before)
    assert not adapters.zero_effect


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**31), rank=st.integers(1, 5), weight=st.floats(-2, 2))
def test_detaching_leaves_no_trace(seed: int, rank: int, weight: float) -> None:
    torch.manual_seed(seed)
    model, x = Small(), torch.randn(3, 8)
    state, forwards, before = {n: t.clone() for n, t in model.state_dict().items()}, _forwards(model), model(x)
    adapters = trained(make_set(model, LoRA(rank=rank)), seed=seed)
    adapters.weight = weight

    adapters.attach(model)
    model(x).sum().backward()
    adapters.detach()

    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert _forwards(model) == forwards
    assert torch.equal(model(x), before)


def test_an_error_inside_the_block_detaches_too(model: Small, x: Tensor) -> None:
    adapters, before = trained(make_set(model)), model(x)

    with pytest.raises(KeyError), adapters.attached(model):
        raise KeyError

    assert torch.equal(model(x), before)


def test_a_set_is_attached_to_one_model_at_a_time(model: Small) -> None:
    adapters = make_set(model)

    with adapters.attached(model), pytest.raises(ConfigError, match="attached to a model already"):
        adapters.attach(model)


def test_several_sets_add_up(model: Small, x: Tensor) -> None:
    first, second = trained(make_set(model), seed=1), trained(make_set(model), seed=2)
    linear, inner = model.get_submodule("blocks.0.out"), torch.cat([x, x, x], dim=-1)[..., :19]

    with first.attached(model), second.attached(model):
        both = linear(inner)
    with first.attached(model):
        one = linear(inner)
    with second.attached(model):
        other = linear(inner)

    torch.testing.assert_close(both, one + other - linear(inner))


def test_gradients_reach_the_adapters_and_only_them(model: Small, x: Tensor) -> None:
    adapters = trained(make_set(model))

    with adapters.attached(model):
        model(x).square().mean().backward()

    assert all(p.grad is not None and p.grad.any() for p in adapters.parameters())
    assert all(p.grad is None for p in model.parameters())


def test_the_same_seed_gives_the_same_weights() -> None:
    one, same, other = (make_set(Small(), seed=seed).state_dict() for seed in (1, 1, 2))

    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_targets_decide_what_is_adapted() -> None:
    network = LoRA(rank=2, targets=Targets(include=("head",), exclude=(r".*\.qk",)))

    assert make_set(Small(), network).names == ("blocks.0.attn.proj_out", "blocks.1.attn.proj_out", "head")


def test_a_bfloat16_model_runs_with_float32_adapters(model: Small, x: Tensor) -> None:
    adapters = trained(make_set(model))

    with adapters.attached(model.bfloat16()):
        assert model(x.bfloat16()).dtype == torch.bfloat16


def test_a_set_made_from_a_file_does_what_the_original_did(model: Small, x: Tensor) -> None:
    original = trained(make_set(model, LoRA(rank=3, alpha=2)))
    with original.attached(model):
        expected = model(x)

    copy = AdapterSet.from_file(original.to_file(), model, keys=KEYS)

    with copy.attached(model):
        assert torch.equal(model(x), expected)
    assert not any(p.requires_grad for p in copy.parameters())


def test_weight_scales_and_negative_weight_takes_away(model: Small, x: Tensor) -> None:
    file = trained(make_set(model)).to_file()
    plus, minus = (AdapterSet.from_file(file, model, keys=KEYS, weight=w) for w in (0.7, -0.7))
    before = model(x)

    with plus.attached(model), minus.attached(model):
        torch.testing.assert_close(model(x), before)


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 2**31), rank=st.integers(1, 6), alpha=st.floats(0.1, 20), weight=st.floats(-2, 2))
def test_merging_gives_the_same_output_as_attaching(seed: int, rank: int, alpha: float, weight: float) -> None:
    torch.manual_seed(seed)
    model, x = Small().double(), torch.randn(3, 8).double()
    adapters = trained(make_set(model, LoRA(rank=rank, alpha=alpha)), seed=seed)
    adapters.weight = weight
    merge = adapters.to_file().merge_hook(weight)
    with adapters.attached(model):
        live = model(x)

    _merge_into(model, merge)

    merge.check()
    torch.testing.assert_close(model(x), live, atol=1e-5, rtol=1e-5)


def _merge_into(model: nn.Module, merge: object) -> None:
    assert callable(merge)
    modules = dict(model.named_modules())
    names = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    for original, members in KEYS.groups(names).items():
        linears = [module for name in members if isinstance(module := modules[name], nn.Linear)]
        merged = merge(f"{original}.weight", torch.cat([linear.weight.data for linear in linears]))
        rows = merged.split([linear.out_features for linear in linears])
        for linear, part in zip(linears, rows, strict=True):
            linear.weight.data = part.clone()


def test_a_file_can_be_loaded_into_a_set_of_the_same_shape(model: Small) -> None:
    source, target = trained(make_set(model, LoRA(rank=3, alpha=6))), make_set(model, seed=9)

    target.load_file(source.to_file())

    assert all(torch.equal(t, target.state_dict()[n]) for n, t in source.state_dict().items())
    assert target.to_file().modules[NAMES[0]].strength == 2


def test_every_module_that_does_not_fit_is_listed(model: Small) -> None:
    file = make_set(model, LoRA(rank=4)).to_file()

    with pytest.raises(WeightsError) as caught:
        make_set(model, LoRA(rank=3)).load_file(file)

    assert [issue.path for issue in caught.value.issues] == list(NAMES)


def test_a_file_with_missing_modules_is_not_loaded(model: Small) -> None:
    file = make_set(model).to_file()
    partial = attrs.evolve(file, modules={NAMES[0]: file.modules[NAMES[0]]})

    with pytest.raises(WeightsError, match="is missing in the file"):
        make_set(model).load_file(partial)


def test_a_file_of_another_model_is_refused_with_the_nearest_name(model: Small) -> None:
    weights = make_set(model).to_file().modules[NAMES[0]]

    with pytest.raises(WeightsError, match=r"did you mean 'blocks\.0\.attn\.qk'"):
        AdapterSet.from_file(LoRAFile(modules={"blocks.0.attn.qq": weights}), model, keys=KEYS)


def test_a_file_of_another_width_is_refused(model: Small) -> None:
    file = make_set(Small(dim=16)).to_file()

    with pytest.raises(WeightsError, match=r"shape \(35, 16\), the model's is \(19, 8\)"):
        AdapterSet.from_file(file, model, keys=KEYS)


def test_a_file_with_the_librarys_names_is_understood_where_nothing_is_split(model: Small) -> None:
    file = make_set(model).to_file()
    theirs = LoRAFile(modules={"blocks.0.out": file.modules["blocks.0.attn.proj_out"]})

    assert AdapterSet.from_file(theirs, model, keys=KEYS).names == ("blocks.0.attn.proj_out",)


def _kind(kind: str) -> AdapterNetwork:
    return {"lora": LoRA(rank=3), "dora": DoRA(rank=3), "loha": LoHa(rank=3), "lokr": LoKr(rank=1)}[kind]


@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr"])
def test_a_set_of_any_kind_is_frozen_from_its_file_with_the_same_outputs(kind: str, model: Small, x: Tensor) -> None:
    original = make_set(model, _kind(kind))
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    with original.attached(model):
        expected = model(x)

    copy = AdapterSet.from_file(original.to_file(), model, keys=KEYS)

    with copy.attached(model):
        assert torch.equal(model(x), expected)


def test_a_file_of_several_kinds_becomes_layers_of_these_kinds(model: Small) -> None:
    loha, lokr = (make_set(model, _kind(kind)).to_file().modules for kind in ("loha", "lokr"))
    mixed = LoRAFile(modules={NAMES[0]: loha[NAMES[0]], NAMES[1]: lokr[NAMES[1]]})

    adapters = AdapterSet.from_file(mixed, model, keys=KEYS)

    assert [adapter.kind for adapter in adapters.to_file().modules.values()] == ["loha", "lokr"]


def test_training_goes_on_from_a_file_that_decides_modules_ranks_and_strengths(model: Small) -> None:
    rules = (Rule(modules=r"blocks\.1\..*", rank=2),)
    only = Targets(exclude=(r"blocks\.0\.attn\.qk",))
    file = trained(make_set(model, LoRA(rank=5, alpha=2, rules=rules, targets=only))).to_file()
    network = LoRA(rank=64, dropout=0.1, plus_ratio=4, max_norm=3, rules=(Rule(modules=r".*proj_out", rate=0.5),))

    adapters = AdapterSet.continued(file, model, keys=KEYS, network=network)

    assert adapters.names == NAMES[1:]
    assert {name: (w.rank, w.strength) for name, w in adapters.to_file().modules.items()} == {
        name: (w.rank, w.strength) for name, w in file.modules.items()
    }
    assert all(torch.equal(p, q) for p, q in zip(adapters.parameters(), _parameters(file, model), strict=True))
    assert {group.name: group.rate for group in adapters.groups()} == {
        "unet": 1.0,
        "unet plus": 4.0,
        "unet x0.5": 0.5,
        "unet x0.5 plus": 2.0,
    }
    assert all(p.requires_grad for p in adapters.parameters())
    norms = adapters.limit_norms()
    assert norms is not None
    assert norms.largest <= 3


def _parameters(file: LoRAFile, model: nn.Module) -> list[nn.Parameter]:
    return list(AdapterSet.from_file(file, model, keys=KEYS).parameters())


@pytest.mark.parametrize(("held", "wanted"), [("loha", "lora"), ("lora", "dora"), ("dora", "lora"), ("lora", "lokr")])
def test_a_file_of_another_kind_is_not_trained_further(held: str, wanted: str, model: Small) -> None:
    file = make_set(model, _kind(held)).to_file()

    with pytest.raises(WeightsError, match=f"is {held} in the file, the network is {wanted}"):
        AdapterSet.continued(file, model, keys=KEYS, network=_kind(wanted))


def test_a_rule_that_matches_nothing_in_the_file_is_an_error(model: Small) -> None:
    file = make_set(model).to_file()

    with pytest.raises(ConfigError, match=r"rules\[0\]\.modules: 'head' matches no module"):
        AdapterSet.continued(file, model, keys=KEYS, network=LoRA(rules=(Rule(modules="head", rate=0.5),)))


def test_switched_off_adapters_leave_the_model_as_it_was(model: Small, x: Tensor) -> None:
    adapters, before = trained(make_set(model)), model(x)
    adapters.weight = 0.7

    with adapters.attached(model):
        with adapters.switched_off():
            assert torch.equal(model(x), before)
        assert not torch.equal(model(x), before)

    assert adapters.weight == 0.7


def test_norms_are_limited_only_where_the_network_says_so(model: Small) -> None:
    free, limited = (trained(make_set(model, LoRA(rank=3, max_norm=limit))) for limit in (None, 0.5))

    norms = limited.limit_norms()

    assert free.limit_norms() is None
    assert norms is not None
    assert norms.scaled == len(NAMES)
    found = [float(weights.delta().norm()) for weights in limited.to_file().modules.values()]
    assert found == pytest.approx([0.5] * len(NAMES), rel=1e-4)


def test_a_state_of_the_set_is_named_by_module_and_role() -> None:
    names = list(make_set(Small(), LoKr(rank=1)).state_dict())

    assert names[:3] == [f"layers.blocks_0_attn_qk.lokr_{role}" for role in ("w1", "w2_a", "w2_b")]
