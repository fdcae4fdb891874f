from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from musubi import BlockSwap, ConfigError, FP8Cast, FP8Scaled, GradientCheckpointing, Int8Scaled, Wan, WanPipeline
from musubi.architectures.wan.facts import TextFacts
from musubi.architectures.wan.text import empty_umt5
from musubi.memory.components import loaded, policies_within
from musubi.memory.encoders import TextEncoderMemory
from musubi.memory.policy import FitContext, MemoryPolicy, arrange, preparation
from musubi.memory.quant_linear import QuantLinear
from musubi.memory.sizes import measure
from musubi.memory.vae import VAETiling
from musubi.testing.checkpoints import tiny_wan
from musubi.testing.toy import Toy

CPU = torch.device("cpu")
WAN = Wan.t2v_14b()
CAPTIONS = ("a cat", "x" * 600, "two blue birds in the snow")
BOTH = TextEncoderMemory(policies=(Int8Scaled(), BlockSwap(blocks=16)))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Wan:
    return tiny_wan(tmp_path_factory.mktemp("tiny"))


def embeddings(wan: Wan, *policies: MemoryPolicy, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return what the text encoder makes of three captions of very different lengths."""
    component = wan.component("t5")
    within = policies_within(policies, component)
    with loaded(wan.codec(), component, within, device=CPU, dtype=dtype) as encoder:
        found: list[Tensor] = encoder.encode(CAPTIONS)  # type: ignore[operator]
    return found


def issues(*policies: MemoryPolicy, model: Wan | Toy = WAN) -> list[tuple[str, str]]:
    """Return the path and the hint of every problem of policies for a model."""
    try:
        arrange(policies, FitContext.of(model, training=True))
    except ConfigError as error:
        return [(issue.path, issue.hint) for issue in error.issues]
    return []


def test_it_survives_files_with_the_policies_inside_it() -> None:
    pipeline = WanPipeline(model=WAN).with_memory(BOTH, VAETiling(tile=512)).to_dict()

    assert pipeline["memory"][0] == {
        "kind": "text_encoder",
        "policies": [Int8Scaled().to_dict(), BlockSwap(blocks=16).to_dict()],
        "on_cpu": False,
    }
    assert WanPipeline.from_dict(pipeline).to_dict() == pipeline
    assert all(TextEncoderMemory.from_toml(spec.to_toml()) == spec for spec in (BOTH, TextEncoderMemory(on_cpu=True)))


def test_a_mistake_in_a_file_is_named_by_its_nested_path() -> None:
    values = WanPipeline(model=WAN).with_memory(BOTH).to_dict()
    values["memory"][0]["policies"][1]["blokcs"] = 3

    with pytest.raises(ConfigError) as caught:
        WanPipeline.from_dict(values)

    assert "memory[0].policies[1].blokcs" in {issue.path for issue in caught.value.issues}


def test_the_denoiser_is_left_alone() -> None:
    swap = BlockSwap(blocks=3)

    assert arrange((BOTH, swap, VAETiling()), FitContext.of(WAN, training=True)) == (swap,)


def test_only_text_encoders_with_blocks_are_acted_in() -> None:
    assert [policy.kind for policy in policies_within([BOTH], WAN.component("t5"))] == [
        "int8_scaled",
        "tables_on_host",
        "block_swap",
    ]
    assert policies_within([BOTH, BlockSwap(blocks=3)], WAN.component("vae")) == ()
    assert policies_within([BOTH], Toy().component("text")) == ()


def test_problems_inside_come_back_under_their_nested_path() -> None:
    both = TextEncoderMemory(policies=(FP8Scaled(), BlockSwap(blocks=24), FP8Scaled()))

    found = dict(issues(BlockSwap(blocks=2), both))

    assert set(found) == {"memory[1].policies[1].blocks", "memory[1].policies[2]"}
    assert "one must stay" in found["memory[1].policies[1].blocks"]


def test_a_model_without_such_a_text_encoder_says_so() -> None:
    assert issues(BOTH, model=Toy()) == [("memory[0]", "leave TextEncoderMemory out")]


def test_two_of_them_are_one_too_many() -> None:
    assert [path for path, _ in issues(BOTH, BOTH)] == ["memory[1]"]


@pytest.mark.parametrize(
    ("policies", "on_cpu", "way_out"),
    [
        ((), False, "on_cpu=True"),
        ((VAETiling(),), False, "beside"),
        ((GradientCheckpointing(),), False, "denoiser"),
        ((Int8Scaled(), BlockSwap(blocks=2)), True, "on_cpu"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(policies: tuple[MemoryPolicy, ...], on_cpu: bool, way_out: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TextEncoderMemory(policies=policies, on_cpu=on_cpu)

    (issue,) = caught.value.issues
    assert way_out in issue.hint


def test_a_policy_that_waits_for_sizes_has_to_be_said_outright() -> None:
    (found,) = issues(TextEncoderMemory(policies=(BlockSwap(blocks="auto"),)))

    assert found[0] == "memory[0].policies[0]"
    assert "BlockSwap(blocks=" in found[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swapped_blocks_and_the_cpu_change_no_bit_of_the_embeddings(dtype: torch.dtype, tiny: Wan) -> None:
    exact = embeddings(tiny, dtype=dtype)

    for memory in (TextEncoderMemory(policies=(BlockSwap(blocks=1),)), TextEncoderMemory(on_cpu=True)):
        assert all(map(torch.equal, embeddings(tiny, memory, dtype=dtype), exact))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("policy", "of_a_weight"), [(Int8Scaled(), 0.006), (FP8Scaled(), 0.025), (FP8Cast(), 0.033)], ids=str
)
def test_quantised_encoders_are_off_by_a_few_times_the_formats_error(
    policy: MemoryPolicy, of_a_weight: float, dtype: torch.dtype, tiny: Wan
) -> None:
    exact = embeddings(tiny, dtype=dtype)

    near = embeddings(tiny, TextEncoderMemory(policies=(policy,)), dtype=dtype)

    for ours, theirs in zip(near, exact, strict=True):
        error = float((ours - theirs).float().norm() / theirs.float().norm())
        assert 0 < error < 5 * of_a_weight, "fourteen random matrices in a row"
        assert ours.dtype == dtype


def test_a_swap_of_quantised_blocks_changes_no_bit_either(tiny: Wan) -> None:
    alone = embeddings(tiny, TextEncoderMemory(policies=(Int8Scaled(),)))

    both = embeddings(tiny, TextEncoderMemory(policies=(BlockSwap(blocks=1), Int8Scaled())))

    assert all(map(torch.equal, both, alone))


def test_all_linears_of_the_blocks_are_quantised_and_nothing_else(tiny: Wan) -> None:
    component = tiny.component("t5")
    within = policies_within([TextEncoderMemory(policies=(FP8Scaled(),))], component)

    with loaded(tiny.codec(), component, within, device=CPU, dtype=torch.bfloat16) as encoder:
        linears = [module for module in encoder.modules() if isinstance(module, nn.Linear)]
        others = {p.dtype for m in encoder.modules() if not isinstance(m, nn.Linear) for p in m.parameters(False)}

    assert len(linears) == 2 * 7
    assert {type(linear) for linear in linears} == {QuantLinear}
    assert others == {torch.bfloat16}


def test_more_blocks_than_the_file_has_are_refused_when_it_is_opened(tiny: Wan) -> None:
    with pytest.raises(ConfigError, match=r"must be between 1 and 1 for the text encoder t5, got 16"):
        embeddings(tiny, TextEncoderMemory(policies=(BlockSwap(blocks=16),)))


def test_files_of_all_layouts_go_through_the_hooks(tmp_path: Path, tiny: Wan) -> None:
    memory = TextEncoderMemory(policies=(Int8Scaled(),))
    expected = embeddings(tiny, memory)

    for layout in ("original_pth", "diffusers"):
        found = embeddings(tiny_wan(tmp_path / layout, layout=layout), memory)
        assert all(map(torch.equal, found, expected))


@pytest.fixture(params=["cast", "scaled"])
def eight_bits(request: pytest.FixtureRequest, tmp_path: Path, tiny: Wan) -> Wan:
    """Return the tiny model with a text encoder whose file holds the blocks in 8 bits, as ComfyUI's do."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in load_file(tiny.weight("t5").resolve()).items():
        scale = tensor.abs().amax() / 448 if request.param == "scaled" else torch.tensor(1.0)
        matrix = name.startswith("blocks.") and "pos_embedding" not in name and tensor.ndim == 2
        tensors[name] = (tensor / scale).to(torch.float8_e4m3fn) if matrix else tensor
        if matrix and request.param == "scaled":
            tensors[name.replace(".weight", ".scale_weight")] = scale
    save_file(tensors, tmp_path / "t5_8bit.safetensors")
    return tiny.with_weights(t5=tmp_path / "t5_8bit.safetensors")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_of_8_bits_stays_so_and_gives_what_its_numbers_stand_for(dtype: torch.dtype, eight_bits: Wan) -> None:
    codec, component = eight_bits.codec(), eight_bits.component("t5")
    wide: list[Tensor] = codec.load("t5", device=CPU, dtype=dtype).encode(CAPTIONS)  # type: ignore[operator]

    with loaded(codec, component, [], device=CPU, dtype=dtype) as encoder:
        kinds = {m.weight.dtype for m in encoder.modules() if isinstance(m, nn.Linear)}
        kept: list[Tensor] = encoder.encode(CAPTIONS)  # type: ignore[operator]

    assert kinds == {torch.float8_e4m3fn}
    assert all(map(torch.equal, kept, wide))
    swapped = embeddings(eight_bits, TextEncoderMemory(policies=(BlockSwap(blocks=1),)), dtype=dtype)
    assert all(map(torch.equal, swapped, wide))


def test_a_file_of_8_bits_is_not_quantised_again(eight_bits: Wan) -> None:
    with pytest.raises(ConfigError, match="quantised already") as caught:
        embeddings(eight_bits, TextEncoderMemory(policies=(Int8Scaled(),)))

    assert "kept as they are" in caught.value.issues[0].hint


@pytest.mark.parametrize(("policies", "gigabytes"), [((), 1.16), ((Int8Scaled(),), 0.60)], ids=["bfloat16", "int8"])
def test_the_published_encoder_of_11_gb_is_planned_to_take_about_one_when_swapped(
    policies: tuple[MemoryPolicy, ...], gigabytes: float
) -> None:
    component = WAN.component("t5")
    published = TextFacts(
        vocabulary=256_384, dim=4096, ffn_dim=10_240, num_heads=64, head_dim=64, num_layers=24, num_buckets=32
    )
    model = nn.ModuleDict({"encoder": empty_umt5(published)}).to(torch.bfloat16)
    table = model.get_submodule(*component.tables).weight
    assert isinstance(table, Tensor)

    before = measure(model, component.layout, dtype=torch.bfloat16)
    preparation(policies, keys=component.keys, layout=component.layout)(model)
    after = BlockSwap(blocks=23).estimate(measure(model, component.layout, dtype=torch.bfloat16))

    assert before.weights == pytest.approx(11.36e9, rel=0.01)
    assert after.weights - table.nbytes == pytest.approx(gigabytes * 1e9, rel=0.02), "the table stays on the host"
