"""What goes wrong with a model in this process, and what must happen then."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from insightv.backends.hf.engine import Engine
from insightv.backends.hf.kv_slab import Slab
from insightv.backends.hf.model import HFModel
from insightv.errors import ConfigError, InputError, ModelError
from insightv.records import Completion, Message, Sampling
from insightv.train.finetune.models import load_processor
from tests.backends import tiny_vlm

GREEDY = Sampling(temperature=0, max_tokens=12)
STEP = Slab.step
WHOLE = {"config.json": '{"model_type": "llava"}', "x.safetensors": ""}
INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vlm.build(tmp_path_factory.mktemp("vlm"))


def ask(text: str, seed: int | None = None) -> list[Message]:
    return [Message(role="user", content=(text,) if seed is None else (tiny_vlm.picture(seed), text))]


async def replies(model: HFModel, n: int = 5) -> list[Completion]:
    calls = [model.chat(ask(f"Question {i}", i), GREEDY) for i in range(n)]
    return [reply for [reply] in await asyncio.gather(*calls)]


def run(folder: Path, *, fail_above: int | None = None, n: int = 5, **options: Any) -> list[Completion]:
    async def main() -> list[Completion]:
        model = HFModel(str(folder), **options)
        await model.chat(ask("Load."), GREEDY)  # loading tries the model out; the fault is to come later
        patch = pytest.MonkeyPatch()
        if fail_above is not None:

            def step(self: Slab, net: Any, slots: Sequence[int], *rest: Any) -> torch.Tensor:
                if len(slots) > fail_above:
                    raise torch.OutOfMemoryError("no room")
                return STEP(self, net, slots, *rest)

            patch.setattr(Slab, "step", step)
        try:
            return await replies(model, n)
        finally:
            patch.undo()
            await model.aclose()

    return asyncio.run(main())


def test_out_of_memory_halves_the_batch_and_loses_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = [reply.text for reply in run(folder)]
    assert [reply.text for reply in run(folder, fail_above=1)] == expected
    assert "continuing with" in caplog.text


def test_out_of_memory_alone_is_an_error_of_that_call_only(folder: Path) -> None:
    async def main() -> None:
        model = HFModel(str(folder))
        [before] = await model.chat(ask("Fine.", 1), GREEDY)

        def step(self: Slab, *rest: Any) -> torch.Tensor:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 byte")

        patch = pytest.MonkeyPatch()
        patch.setattr(Slab, "step", step)
        try:
            outcomes = await asyncio.gather(
                *(model.chat(ask(f"Too much {i}.", i), GREEDY) for i in range(3)), return_exceptions=True
            )
        finally:
            patch.undo()
        assert [error.code for error in outcomes if isinstance(error, ModelError)] == ["oom"] * 3
        [after] = await model.chat(ask("Fine.", 1), GREEDY)
        assert after.text == before.text
        await model.aclose()

    asyncio.run(main())


def test_a_crash_fails_its_rows_and_the_model_goes_on(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        model = HFModel(str(folder))
        await model.chat(ask("Fine."), GREEDY)

        def step(self: Slab, *rest: Any) -> torch.Tensor:
            raise ValueError("an odd picture")

        patch = pytest.MonkeyPatch()
        patch.setattr(Slab, "step", step)
        try:
            with pytest.raises(ModelError, match="an odd picture") as caught:
                await model.chat(ask("Odd.", 2), GREEDY)
        finally:
            patch.undo()
        assert caught.value.code == "worker_crash"
        assert caught.value.usage.requests == 1
        assert await replies(model)
        await model.aclose()

    with caplog.at_level(logging.CRITICAL):
        asyncio.run(main())


def test_a_model_with_sliding_attention_falls_back_to_generate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.backends.test_hf import generate

    where = tiny_vlm.build(tmp_path / "sliding", window=48)

    async def main() -> None:
        model = HFModel(str(where), batch=3)
        found = await replies(model, 4)
        [hot, other] = await model.chat(ask("Hot.", 1), Sampling(temperature=1, max_tokens=9), n=2)
        [same] = await model.chat(ask("Hot.", 1), Sampling(temperature=1, max_tokens=9))
        assert hot.text == same.text != other.text
        pieces = [piece async for piece in model.stream(ask("Question 0", 0), GREEDY)]
        assert "".join(p for p in pieces if isinstance(p, str)) == found[0].text
        [guarded] = await model.chat(ask("An <image> in words.", 1), GREEDY)
        assert guarded.usage.cached_tokens == 0
        await model.aclose()

        from transformers import AutoModelForImageTextToText, AutoProcessor

        plain = AutoModelForImageTextToText.from_pretrained(where).eval(), AutoProcessor.from_pretrained(where)
        for i, reply in enumerate(found):
            assert reply.text == generate(plain, ask(f"Question {i}", i), 12)

    asyncio.run(main())
    assert "plain generate" in caplog.text


def test_a_picture_that_breaks_the_processor_is_an_error_of_its_call(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlavaNextProcessor

    def breaks(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a side of 0 pixels")

    async def main() -> None:
        model = HFModel(str(folder))
        await model.check()
        with monkeypatch.context() as patch:
            patch.setattr(LlavaNextProcessor, "__call__", breaks)
            with pytest.raises(ModelError, match="refuses the picture: a side of 0 pixels") as caught:
                await model.chat(ask("Odd.", 77), GREEDY)
        assert caught.value.code == "bad_request"
        assert await model.chat(ask("Odd.", 77), GREEDY)
        await model.aclose()

    asyncio.run(main())


def test_a_models_own_settings_of_generation_end_no_reply(tmp_path: Path) -> None:
    where = tiny_vlm.build(tmp_path / "sliding", window=48)
    [expected] = run(where, n=1)
    own: list[dict[str, Any]] = [{"max_time": 1e-6}, {"stop_strings": ["a"]}, {"prompt_lookup_num_tokens": 3}]
    for settings in (*own, {"eos_token_id": "x"}):
        (where / "generation_config.json").write_text(json.dumps(settings))
        assert run(where, n=1, deadline_s=30) == [expected], settings


def test_a_reply_that_generate_gives_up_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = tiny_vlm.build(tmp_path / "sliding", window=48)
    monkeypatch.setattr("insightv.backends.hf.plain_generate._NOT_THE_MODELS", ())
    (where / "generation_config.json").write_text('{"max_time": 1e-6}')
    with pytest.raises(ModelError, match="generate ended before the reply did"):
        run(where, n=1, deadline_s=30)


def test_numbers_that_are_none_are_never_text(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = Path(shutil.copytree(folder, tmp_path / "nan"))
    weights = load_file(broken / "model.safetensors")
    save_file({k: v * torch.nan if "lm_head" in k else v for k, v in weights.items()}, broken / "model.safetensors")

    async def main() -> None:
        model = HFModel(str(broken))
        with pytest.raises(ModelError) as caught:
            await model.chat(ask("What?"), GREEDY)
        assert caught.value.code == "malformed"
        await model.aclose()

    asyncio.run(main())


def test_deadline_and_closing_end_calls(folder: Path) -> None:
    async def main() -> None:
        hurried, other = HFModel(str(folder), deadline_s=0.3), HFModel(str(folder))
        await other.chat(ask("Load."), GREEDY)
        with pytest.raises(ModelError) as caught:
            await asyncio.gather(*(hurried.chat(ask(f"{i}"), Sampling(max_tokens=500)) for i in range(64)))
        assert caught.value.code == "timeout"
        assert hurried.counts is other.counts, "equal models share one engine"
        await hurried.aclose()
        assert await other.chat(ask("Still there?"), GREEDY)
        last = asyncio.create_task(other.chat(ask("Long."), Sampling(max_tokens=500)))
        while other.counts.drawn < 30:
            await asyncio.sleep(0.005)
        await other.aclose()
        with pytest.raises(ModelError, match="closed"):
            await last
        with pytest.raises(ModelError, match="closed"):
            await other.chat(ask("After the end."), GREEDY)
        await other.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("files", "cure"),
    [
        ({}, "config.json"),
        ({"config.json": "{"}, "cannot be read as JSON"),
        ({"config.json": "{}"}, "model_type"),
        ({"adapter_config.json": "{}"}, "LoRA adapter"),
        ({"config.json": '{"model_type": "llava"}', "pytorch_model.bin": "x"}, "save_pretrained"),
        ({"config.json": '{"model_type": "llava"}'}, "no weights"),
        ({"config.json": "[" * 100_000}, "cannot be read as JSON"),
        (WHOLE | {"adapter_config.json": "{}"}, "adapter beside the model"),
        (WHOLE | {"config.json": '{"model_type": "a", "transformers_weights": "../x.safetensors"}'}, "no file of its"),
        (WHOLE | {INDEX: '{"weight_map": {"a": "x.safetensors", "b": "../x.safetensors"}}'}, "'../x.safetensors' in"),
        (WHOLE | {INDEX: '{"weight_map": {"a": "/x.safetensors"}}'}, "no file of its own"),
        (WHOLE | {INDEX: '{"weight_map": {"a": "x.bin"}}'}, "no file of its own"),
        (WHOLE | {INDEX: '{"weight_map": {"a": 5}}'}, "no file of its own"),
        (WHOLE | {INDEX: '{"weight_map": {"a": "y.safetensors"}}'}, "lacks 'y.safetensors'"),
        (WHOLE | {INDEX: '{"weight_map": ["x.safetensors"]}'}, "cannot be read"),
        (WHOLE | {INDEX: "[" * 100_000}, "cannot be read"),
    ],
)
def test_directories_that_cannot_be_models_are_refused_at_once(
    tmp_path: Path, files: dict[str, str], cure: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=cure):
        HFModel(str(tmp_path))


@pytest.mark.parametrize("name", ["./missing/folder", "/no/such", "a/b/c", "../x", ""])
def test_names_that_are_nothing_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="neither an existing directory nor a hub id"):
        HFModel(name)


def test_options_out_of_range_are_refused(folder: Path) -> None:
    wrong: list[dict[str, Any]] = [{"batch": 0}, {"deadline_s": -1}, {"cache_gb": -0.1}, {"dtype": "float8"}]
    wrong += [{"threads": 0}, {"threads": 1.5}, {"batch": "3"}, {"batch": True}, {"deadline_s": "5"}, {"cache_gb": "1"}]
    for options in (*wrong, {"device": 1}, {"revision": 5}, {"dtype": 5}, {"attn_implementation": 2}):
        with pytest.raises(ConfigError):
            HFModel(str(folder), **options)


@pytest.mark.parametrize(("device", "says"), [("gpu", "is not known"), ("cuda:99", "cannot be put on the device")])
def test_a_device_that_is_not_there_is_named(folder: Path, device: str, says: str) -> None:
    async def main() -> None:
        model = HFModel(str(folder), device=device)
        with pytest.raises(ConfigError, match=f"{device}.* {says}|{says} '{device}"):
            await model.chat(ask("Hello."), GREEDY)
        await model.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("moments", [1, 2, 5, 20])
def test_calls_in_any_state_are_told_that_the_model_was_closed(folder: Path, moments: int) -> None:
    async def main() -> None:
        model, other = HFModel(str(folder)), HFModel(str(folder))
        await other.check()  # so that the engine lives on, and closing waits for nothing
        calls = [asyncio.create_task(model.chat(ask(f"Call {i}", i), GREEDY)) for i in range(5)]
        for _ in range(moments):
            await asyncio.sleep(0)
        await model.aclose()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        errors = [outcome for outcome in outcomes if not isinstance(outcome, list)]
        assert [getattr(error, "code", error) for error in errors] == ["connection"] * len(errors)
        late = asyncio.create_task(other.chat(ask("Cancelled."), GREEDY))
        await asyncio.sleep(0)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        await other.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("missing", ["chat_template.jinja", "processor_config.json", "weights", "some weights", "code"])
def test_what_shows_only_when_loading_says_its_cure(folder: Path, tmp_path: Path, missing: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    cure = {"chat_template.jinja": "chat template", "processor_config.json": "processor", "some weights": "do not fit"}
    if missing == "code":
        config = json.loads((copy / "config.json").read_text())
        config |= {"model_type": "strange", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
        (copy / "config.json").write_text(json.dumps(config))
        (copy / "evil.py").write_text("raise SystemExit('ran foreign code')")
    elif missing == "weights":
        (copy / "model.safetensors").write_bytes(b"not safetensors")
    elif missing == "some weights":
        from safetensors.torch import load_file, save_file

        weights = load_file(copy / "model.safetensors")
        save_file({k: v for k, v in weights.items() if "lm_head" not in k}, copy / "model.safetensors")
    else:
        (copy / missing).unlink()

    async def main() -> None:
        model = HFModel(str(copy))
        with pytest.raises(ConfigError, match=cure.get(missing, "cannot be loaded")):
            await model.chat(ask("Hello."), GREEDY)
        await model.aclose()

    asyncio.run(main())


ENDLESS = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3


def test_a_chat_template_that_does_not_end_is_left_and_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("prompt", "plain_generate"):
        monkeypatch.setattr(f"insightv.backends.hf.{module}.TEMPLATE_S", 0.3)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if 'for ever' in messages | string %}" + ENDLESS + "{% endif %}")

    async def main(text: str) -> None:
        model = HFModel(str(copy))
        with pytest.raises((ConfigError, ModelError), match="chat template did not end within"):
            await model.chat(ask(text), GREEDY)
        await model.aclose()

    asyncio.run(main("Look for ever."))
    template.write_text(ENDLESS)
    asyncio.run(main("Hello."))


@pytest.mark.parametrize(
    ("place", "value"), [("num_hidden_layers", 10**9), ("num_hidden_layers", 1e300), ("hidden_size", 10**12)]
)
def test_numbers_that_no_model_has_are_seen_before_it_is_built(
    place: str, value: float, folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    config["text_config"][place] = value
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=rf"has {place} = 1.* \(at most \d+\) in its config.json"):
        HFModel(str(copy))
    with pytest.raises(InputError, match=f"has {place} = 1"):
        load_processor(copy)


def test_an_index_of_weights_in_the_directory_is_loaded(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(weights)
    where = {name: f"model-{1 + (name in names[3:])}.safetensors" for name in names}
    for file in set(where.values()):
        save_file({name: weights[name] for name in names if where[name] == file}, copy / file, {"format": "pt"})
    (copy / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert [reply.text for reply in run(copy)] == [reply.text for reply in run(folder)]


@pytest.mark.parametrize("where", ["a layer", "the configuration"])
def test_code_that_came_with_a_model_is_refused_after_loading_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from transformers import AutoModelForImageTextToText

    foreign = type("Foreign", (torch.nn.Module,), {"__module__": "transformers_modules.evil.code"})()
    real: Any = AutoModelForImageTextToText.from_pretrained

    def bypassed(*args: Any, **options: Any) -> Any:
        model, report = real(*args, **options)
        (model if where == "a layer" else model.config).odd = foreign
        return model, report

    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", bypassed)

    async def main() -> None:
        model = HFModel(str(folder), batch=30 + len(where))
        with pytest.raises(ConfigError, match=r"brought its own code \(transformers_modules.evil.code\)"):
            await model.chat(ask("Hello."), GREEDY)
        await model.aclose()

    asyncio.run(main())


def test_unknown_sampling_options_and_no_replies_are_refused(folder: Path) -> None:
    async def main() -> None:
        model = HFModel(str(folder))
        with pytest.raises(ModelError, match="min_p"):
            await model.chat(ask("Hello."), Sampling(extra={"min_p": 0.1}))
        with pytest.raises(ValueError, match="n = 0"):
            await model.chat(ask("Hello."), GREEDY, n=0)
        await model.aclose()

    asyncio.run(main())


def test_importing_the_backend_loads_nothing_heavy() -> None:
    code = (
        "import sys, insightv.backends.hf.model, insightv.tiny.backend;"
        "print([m for m in ('torch', 'transformers', 'PIL') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_has_ended_says_so_and_lets_nobody_wait(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bool:
        raise RuntimeError("the engine breaks")

    async def main() -> None:
        model = HFModel(str(folder), batch=31)
        await model.check()
        monkeypatch.setattr(Engine, "_take", broken)
        with pytest.raises(ModelError, match="ended"):
            await model.chat(ask("Still there?"), GREEDY)
        with pytest.raises(ModelError, match="ended"):
            await model.chat(ask("And now?"), GREEDY)
        with pytest.raises(ConfigError, match="ended"):
            await model.check()
        await model.aclose()

    asyncio.run(main())
