from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from musubi.architectures.wan.api import WanPipeline
from musubi.architectures.wan.spec import Wan
from musubi.core.control import CancelToken
from musubi.core.errors import DataError, WeightsError
from musubi.core.events import Event, Progress
from musubi.inference.engine import SamplingCancelledError
from musubi.inference.latents import Latents
from musubi.inference.media import Image, Video
from musubi.inference.pipeline import Pipeline
from musubi.inference.request import Request
from musubi.inference.single_frame import SingleFrame
from musubi.memory.block_swap import BlockSwap
from musubi.memory.device import pick_device, pick_dtype
from musubi.memory.encoders import TextEncoderMemory
from musubi.memory.quantise import FP8Scaled, Int8Scaled
from musubi.memory.vae import VAETiling
from musubi.networks.file import LoRAFile
from musubi.testing.toy import Toy
from tests.inference.showing import Showing
from tests.inference.watched import Watched

TOY = Pipeline(model=Toy(), device="cpu")
RED = np.full((8, 8, 3), (255, 0, 0), np.uint8)


def difference(one: Image | Video, other: Image | Video) -> int:
    return int(np.abs(one.to_numpy().astype(int) - other.to_numpy().astype(int)).max())


def test_one_frame_makes_a_picture_and_more_make_a_clip() -> None:
    picture = TOY.generate("a red fox", size=(64, 48), frames=1)
    clip = TOY.generate("a red fox", size=(64, 48), frames=9, fps=12)

    assert (type(picture), picture.size) == (Image, (64, 48))
    assert isinstance(clip, Video)
    assert (clip.frames.shape, clip.fps) == ((9, 48, 64, 3), 12)


def test_the_same_seed_gives_the_same_picture_and_another_one_does_not() -> None:
    first = TOY.generate("a red fox", seed=7)

    assert TOY.generate("a red fox", seed=7) == first
    assert TOY.generate("a red fox", seed=8) != first


def test_a_session_gives_what_single_calls_give() -> None:
    with TOY.open(prompts=["a red fox", "a bird"]) as session:
        together = [session.generate(prompt, seed=seed) for prompt in ("a red fox", "a bird") for seed in (1, 2)]

    alone = [TOY.generate(prompt, seed=seed) for prompt in ("a red fox", "a bird") for seed in (1, 2)]
    assert together == alone


def test_a_single_call_holds_one_model_at_a_time(toy_lora: LoRAFile) -> None:
    toy = Watched()

    Pipeline(model=toy, device="cpu").with_lora(toy_lora).generate("a red fox")

    assert toy.alive.seen == [("text",), ("dit",), ("vae",)]


def test_a_session_loads_each_model_once_and_text_encoders_only_for_new_prompts() -> None:
    toy = Watched()

    with Pipeline(model=toy, device="cpu").open(prompts=["a bird"]) as session:
        for prompt in ("a red fox", "a bird", "a red fox"):
            session.generate(prompt)

    assert toy.alive.seen == [("text",), ("dit",), ("dit", "vae")]


def test_a_closed_session_holds_nothing() -> None:
    toy = Watched()

    with Pipeline(model=toy, device="cpu").open() as session:
        session.generate("a red fox")

    toy.codec().load("vae", device=torch.device("cpu"), dtype=torch.float32)
    assert toy.alive.seen[-1] == ("vae",)


def test_callbacks_hear_every_step() -> None:
    heard: list[Event] = []

    TOY.generate("a red fox", steps=3, on=[heard.append])

    assert [(e.task, e.done, e.total) for e in heard if isinstance(e, Progress)] == [
        ("encoding", 1, 1),
        ("sampling", 1, 3),
        ("sampling", 2, 3),
        ("sampling", 3, 3),
        ("decoding", 1, 1),
    ]


def test_a_cancelled_generation_ends_between_steps() -> None:
    cancel = CancelToken()
    cancel.cancel()

    with pytest.raises(SamplingCancelledError):
        TOY.generate("a red fox", cancel=cancel)


def test_an_attached_lora_is_the_merged_one(toy_lora: LoRAFile) -> None:
    bare = TOY.generate("a red fox", frames=5)

    attached = TOY.with_lora(toy_lora, weight=0.8).generate("a red fox", frames=5)
    merged = TOY.with_lora(toy_lora, weight=0.8, merge=True).generate("a red fox", frames=5)

    assert difference(attached, merged) <= 1
    assert difference(attached, bare) > 10


def test_two_loras_add_up(toy_lora: LoRAFile) -> None:
    twice = TOY.with_lora(toy_lora, weight=0.5).with_lora(toy_lora, weight=0.3, merge=True).generate("a red fox")

    assert difference(twice, TOY.with_lora(toy_lora, weight=0.8).generate("a red fox")) <= 1


def test_a_lora_of_weight_0_changes_nothing(toy_lora: LoRAFile) -> None:
    assert TOY.with_lora(toy_lora, weight=0.0).generate("a red fox") == TOY.generate("a red fox")


def test_a_lora_for_another_model_is_refused(toy_lora: LoRAFile) -> None:
    small = Pipeline(model=Toy(depth=1), device="cpu")

    for merge in (False, True):
        with pytest.raises(WeightsError, match="LoRA"):
            small.with_lora(toy_lora, merge=merge).generate("a red fox")


def test_block_swap_changes_nothing() -> None:
    assert TOY.with_memory(BlockSwap(blocks=1)).generate("a red fox") == TOY.generate("a red fox")


def test_quantised_weights_with_a_lora_come_near(toy_lora: LoRAFile) -> None:
    exact = TOY.with_lora(toy_lora).generate("a red fox")

    near = TOY.with_memory(FP8Scaled()).with_lora(toy_lora).generate("a red fox")

    assert 0 < np.abs(exact.to_numpy().astype(int) - near.to_numpy().astype(int)).mean() < 16


def test_policies_act_in_the_text_encoder_and_the_vae(wan: Wan) -> None:
    pipeline = WanPipeline(model=wan, device="cpu")
    swapped = TextEncoderMemory(policies=(BlockSwap(blocks=1),))
    changing = [TextEncoderMemory(policies=(Int8Scaled(),)), VAETiling(tile=32, overlap=16)]

    plain, same, *others = (
        pipeline.with_memory(*policies).generate("a fox", size=(64, 48), frames=1, steps=2)
        for policies in ([], [swapped, BlockSwap(blocks=1)], *([policy] for policy in changing))
    )

    assert same == plain
    assert all(0 < np.abs(other.to_numpy().astype(int) - plain.to_numpy()).mean() < 16 for other in others)


def test_the_decoder_of_a_session_is_in_tiles_until_it_is_closed(wan: Wan) -> None:
    with WanPipeline(model=wan, device="cpu").with_memory(VAETiling(tile=32, overlap=16)).open() as session:
        one, again = (session.generate("a fox", size=(64, 48), frames=1, steps=2) for _ in range(2))

    assert one == again


def test_results_tell_how_they_were_made(toy_lora: LoRAFile, tmp_path: Path) -> None:
    path = toy_lora.save(tmp_path / "clay.safetensors")

    facts = TOY.with_lora(path, weight=0.8).generate("a red fox", seed=7, guidance=1.0).metadata

    assert facts["prompt"] == "a red fox"
    assert (facts["seed"], facts["loras"]) == ("7", "clay.safetensors:0.8")
    assert not any(str(tmp_path) in value for value in facts.values())


def test_the_network_computes_in_bfloat16_on_accelerators_and_float32_on_cpus() -> None:
    assert pick_dtype(None, torch.device("cpu")) == torch.float32
    assert pick_dtype(None, torch.device("cuda")) == torch.bfloat16
    assert pick_dtype("float16", torch.device("cpu")) == torch.float16
    assert pick_device("cpu") == torch.device("cpu")


def test_half_precision_comes_near() -> None:
    exact, near = TOY.generate("a red fox"), TOY.replace(dtype="bfloat16").generate("a red fox")

    assert 0 < difference(exact, near) < 32


def test_wan_makes_files_that_open_again(wan: Wan, wan_lora: Path, tmp_path: Path) -> None:
    with WanPipeline(model=wan, device="cpu").with_lora(wan_lora, weight=0.8).open() as session:
        picture = session.generate("a clay fox", size=(64, 48), frames=1, steps=2, seed=7)
        clip = session.generate("a clay fox", size=(64, 48), frames=9, steps=2, seed=7)

    with Pillow.open(picture.save(tmp_path / "fox.png")) as found:
        assert np.array_equal(np.asarray(found), picture.to_numpy())
        assert found.info["seed"] == "7"
    with av.open(str(clip.save(tmp_path / "fox.mp4"))) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (64, 48, Fraction(16))
        assert sum(1 for _ in container.decode(stream)) == 9


def test_wan_without_guidance_ignores_the_negative_prompt(wan: Wan) -> None:
    pipeline = WanPipeline(model=wan, device="cpu")
    plain = pipeline.generate("a fox", size=(32, 32), frames=1, steps=2, guidance=1.0)

    assert pipeline.generate("a fox", size=(32, 32), frames=1, steps=2, guidance=1.0, negative="grey") == plain
    assert pipeline.generate("a fox", size=(32, 32), frames=1, steps=2, guidance=4.0, negative="grey") != plain


def test_what_is_shown_changes_what_is_drawn() -> None:
    pipeline = Pipeline(model=Showing(), device="cpu")

    red = pipeline.generate("a red fox", image=RED)

    assert red == pipeline.generate("a red fox", image=Pillow.fromarray(RED))
    assert red != pipeline.generate("a red fox", image=255 - RED)
    assert red != pipeline.generate("a red fox")
    assert red.metadata["image"] == "in memory"


def test_a_single_call_holds_one_model_at_a_time_also_with_pictures() -> None:
    toy = Showing()

    Pipeline(model=toy, device="cpu").generate("a red fox", image=RED)

    assert toy.alive.seen == [("text",), ("vae",), ("dit",), ("vae",)]


def test_a_session_encodes_a_picture_once_for_all_seeds() -> None:
    toy = Showing()

    with Pipeline(model=toy, device="cpu").open() as session:
        first = [session.generate("a red fox", image=RED, seed=seed) for seed in (1, 2)]
        other = session.generate("a red fox", image=255 - RED, seed=1)

    assert toy.alive.seen == [("text",), ("vae",), ("dit",), ("dit", "vae"), ("dit", "vae", "vae")]
    assert len({picture.to_numpy().tobytes() for picture in (*first, other)}) == 3


def test_what_cannot_be_read_is_told_before_a_model_is_loaded(tmp_path: Path) -> None:
    toy = Showing()
    (tmp_path / "broken.png").write_bytes(b"no picture")

    with pytest.raises(DataError, match="the request's image"):
        Pipeline(model=toy, device="cpu").generate("a red fox", image=tmp_path / "broken.png")

    assert toy.alive.seen == []


def test_latents_can_be_saved_and_decoded_later(tmp_path: Path) -> None:
    request = Request("a red fox", frames=9, fps=12, trim_tail=2, seed=3)

    file = TOY.draw_latents(request).save(tmp_path / "fox.safetensors")
    clip = TOY.decode(Latents.load(file))

    assert isinstance(clip, Video)
    assert (clip.frames.shape[0], clip.fps, clip.metadata["seed"]) == (7, 12, "3")
    assert clip == TOY.draw(request)


def test_decoding_loads_the_decoder_alone() -> None:
    toy = Watched()
    pipeline = Pipeline(model=toy, device="cpu")
    latents = pipeline.draw_latents(Request("a red fox"))
    heard: list[Event] = []

    drawn = pipeline.with_lora("gone.safetensors").decode(latents, on=[heard.append])

    assert toy.alive.seen == [("text",), ("dit",), ("vae",)]
    assert [e.task for e in heard if isinstance(e, Progress)] == ["decoding"]
    assert drawn == pipeline.draw(Request("a red fox"))


def test_frames_at_the_end_are_dropped() -> None:
    whole, trimmed = (TOY.generate("a red fox", frames=9, trim_tail=tail) for tail in (0, 3))

    assert (trimmed.to_numpy() == whole.to_numpy()[:6]).all()
    assert isinstance(TOY.generate("a red fox", frames=9, trim_tail=8), Image)


def test_of_a_single_frame_and_its_controls_the_frame_is_kept() -> None:
    pipeline = Pipeline(model=Showing(), device="cpu")
    places = SingleFrame(target=5, controls=(9, 0))

    latents = pipeline.draw_latents(Request("a red fox", control=[RED, RED], single_frame=places))
    picture = pipeline.generate("a red fox", control=[RED, RED], single_frame=places)

    assert latents.tensor.shape[1] == 1
    assert isinstance(picture, Image)
    assert picture == pipeline.decode(latents)
