from __future__ import annotations

import torch

from musubi.architectures.wan.spec import Wan
from musubi.inference.prompts import Words, encode_prompts, words_of
from musubi.memory.block_swap import BlockSwap
from musubi.memory.encoders import TextEncoderMemory
from musubi.memory.quantise import Int8Scaled
from musubi.testing.toy import Toy
from tests.inference.showing import Showing

CPU = torch.device("cpu")
INT8 = TextEncoderMemory(policies=(Int8Scaled(),))


def test_only_stages_that_read_nothing_but_the_caption_are_run() -> None:
    assert [stage.name for stage in Toy().text_stages] == ["text"]


def test_every_text_is_encoded_once_and_alone_or_together_the_same() -> None:
    prompts = encode_prompts(
        Toy(), words_of(Toy(), ["a red fox", "a bird", "a red fox"]), device=CPU, dtype=torch.float32
    )

    assert list(prompts.tensors) == [Words("a red fox"), Words("a bird")]
    alone = encode_prompts(Toy(), words_of(Toy(), ["a bird"]), device=CPU, dtype=torch.float32)
    for name, tensor in alone.tensors[Words("a bird")].items():
        assert torch.equal(prompts.tensors[Words("a bird")][name], tensor)


def test_texts_that_are_missing_are_named_once() -> None:
    prompts = encode_prompts(Toy(), words_of(Toy(), ["a bird"]), device=CPU, dtype=torch.float32)

    fox, bird = words_of(Toy(), ["a fox", "a bird"])
    assert prompts.missing([fox, bird, fox]) == (fox,)
    assert (
        prompts.plus(encode_prompts(Toy(), words_of(Toy(), ["a fox"]), device=CPU, dtype=torch.float32)).missing([fox])
        == ()
    )


def test_no_texts_load_nothing() -> None:
    assert encode_prompts(Wan.t2v_1_3b(), words_of(Wan.t2v_1_3b(), []), device=CPU, dtype=torch.float32).tensors == {}


def test_policies_act_in_the_text_encoder(wan: Wan) -> None:
    plain, swapped, near = (
        encode_prompts(wan, words_of(wan, ["a fox"]), policies=policies, device=CPU, dtype=torch.float32).tensors[
            Words("a fox")
        ]["varlen_t5"]
        for policies in ([], [TextEncoderMemory(policies=(BlockSwap(blocks=1),))], [INT8, BlockSwap(blocks=2)])
    )

    assert torch.equal(swapped, plain)
    assert not torch.equal(near, plain)
    torch.testing.assert_close(near, plain, rtol=0, atol=0.2)


def test_conditions_of_a_batch_are_those_of_its_texts(wan: Wan) -> None:
    prompts, denoiser = (
        encode_prompts(wan, words_of(wan, ["a fox", "two birds"]), device=CPU, dtype=torch.float32),
        wan.denoiser(),
    )

    both = prompts.conditions(denoiser, words_of(wan, ["a fox", "two birds"]), device=CPU)

    assert len(both) == 2
    assert torch.equal(both.text[1], prompts.conditions(denoiser, words_of(wan, ["two birds"]), device=CPU).text[0])


def test_encoded_texts_can_be_used_in_training() -> None:
    prompts = encode_prompts(Toy(), words_of(Toy(), ["a bird"]), device=CPU, dtype=torch.float32)

    assert not any(tensor.is_inference() for tensor in prompts.tensors[Words("a bird")].values())


def test_extra_tensors_are_in_the_conditions_of_every_text() -> None:
    toy, prompts = Showing(), encode_prompts(Toy(), words_of(Toy(), ["a bird", ""]), device=CPU, dtype=torch.float32)
    colours = {"colours": torch.tensor([0.0, 1.0, 0.0])}

    shown = prompts.conditions(toy.denoiser(), words_of(toy, ["a bird", ""]), device=CPU, extra=colours)

    bare = prompts.conditions(toy.denoiser(), words_of(toy, ["a bird", ""]), device=CPU)
    assert torch.equal(shown.text[:, 1], bare.text[:, 1] + 5)
