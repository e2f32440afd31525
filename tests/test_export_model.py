"""Saved models: they come back whole, work in transformers and lm-eval, and damage is named in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import model_factory as make
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import mhc_bench
from mhc_bench.errors import RunError
from mhc_bench.model import load_model, load_run, save_model, weight_digest
from mhc_bench.model.checkpoint import weight_digests
from mhc_bench.model.saving import find_damage

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def private_module_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))


def changed(model: torch.nn.Module) -> torch.nn.Module:
    """The model with every parameter moved away from its start."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.add_(torch.randn(buffer.shape, generator=generator))
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(changed(make.grafted("llama", "mhc")), make.tokenizer(), tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("variant", ["baseline", "hc", "mhc"])
@pytest.mark.parametrize("family", make.FAMILIES)
def test_a_model_comes_back_bit_for_bit(family: str, variant: str, tmp_path: Path) -> None:
    model = changed(make.grafted(family, variant))
    save_model(model, make.tokenizer(), tmp_path / "saved")
    found, tokenizer = load_model(tmp_path / "saved")
    ids = make.token_ids()
    settings = {"max_new_tokens": 8, "do_sample": False}
    assert weight_digest(found) == weight_digest(model)
    assert not find_damage(tmp_path / "saved", weight_digest(model))
    assert torch.equal(found(input_ids=ids).logits, model(input_ids=ids).logits)
    assert torch.equal(found.generate(ids, **settings), model.generate(ids, **settings))
    assert (found.graft_variant, found.graft_options) == (model.graft_variant, model.graft_options)
    assert tokenizer("w5 w7").input_ids == [5, 7]


def test_a_third_party_variant_is_found_again_by_its_module_and_class(tmp_path: Path) -> None:
    model = changed(make.grafted("llama", "test_graft_streams:CopiedStreams", streams=2))
    save_model(model, make.tokenizer(), tmp_path / "saved")
    found, _ = load_model(tmp_path / "saved")
    ids = make.token_ids()
    assert torch.equal(found(input_ids=ids).logits, model(input_ids=ids).logits)
    edit(tmp_path / "saved", variant="test_graft_streams:CopiedStream")
    with pytest.raises(RunError, match="did you mean 'CopiedStreams'"):
        load_model(tmp_path / "saved")


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "deepseek_v3"])
def test_transformers_loads_the_folder_through_its_shim(family: str, tmp_path: Path) -> None:
    model = changed(make.grafted(family, "mhc"))
    save_model(model, make.tokenizer(), tmp_path / "saved")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    assert weight_digest(found) == weight_digest(model)
    assert found.config._attn_implementation == model.config._attn_implementation
    assert found.config._experts_implementation == model.config._experts_implementation
    ids = make.token_ids()
    assert torch.equal(found(input_ids=ids).logits, model(input_ids=ids).logits)
    assert tokenizer("w5 w7").input_ids == [5, 7]


def test_a_model_that_transformers_loaded_is_saved_again_as_it_was(folder: Path, tmp_path: Path) -> None:
    first = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    first.save_pretrained(tmp_path / "again")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again", trust_remote_code=True)
    assert weight_digest(again) == weight_digest(first)
    assert sorted(path.name for path in (tmp_path / "again").glob("*.py")) == ["modeling_mhc_bench.py"]


def test_without_trust_transformers_refuses_and_never_loads_a_stock_model(folder: Path) -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)


def test_in_bf16_the_residual_parameters_stay_fp32(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.bfloat16)
    kinds = {("residual" in name, parameter.dtype) for name, parameter in model.named_parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    assert model(input_ids=make.token_ids()).logits.isfinite().all()


def test_the_folder_holds_safetensors_and_a_shim_that_only_imports(folder: Path) -> None:
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors", ".py", ".jinja"}
    lines = (folder / "modeling_mhc_bench.py").read_text().splitlines()
    code = [line for line in lines if line and not line.startswith('"""')]
    assert [line.split()[0] for line in code] == ["from", "__all__"]
    assert code[0].startswith("from mhc_bench.model.auto import ")


def test_loading_runs_no_code_of_the_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "modeling_mhc_bench.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    load_model(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("family", ["llama", "gemma2", "deepseek_v3"])
def test_lm_eval_generates_the_same_one_by_one_and_in_a_left_padded_batch(
    family: str, tmp_path: Path
) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    save_model(changed(make.grafted(family, "mhc")), make.tokenizer(), tmp_path / "saved")
    prompts = [" ".join(f"w{2 + (7 * start + step) % 46}" for step in range(start + 1)) for start in range(5)]
    texts = []
    for batch_size in (1, 5):
        harness = HFLM(
            pretrained=str(tmp_path / "saved"),
            trust_remote_code=True,
            device="cpu",
            batch_size=batch_size,
            max_length=40,
        )
        settings = {"until": ["w3"], "max_gen_toks": 8}
        requests = [
            Instance(request_type="generate_until", doc={}, arguments=(prompt, settings), idx=index)
            for index, prompt in enumerate(prompts)
        ]
        texts.append(harness.generate_until(requests, disable_tqdm=True))
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1


def test_another_process_loads_and_generates_offline(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, torch; from transformers import AutoModelForCausalLM\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "print(model.generate(torch.tensor([[5, 7, 9]]), max_new_tokens=5, do_sample=False).tolist())\n"
    )
    environment = os.environ | {
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, folder],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    model, _ = load_model(folder)
    expected = model.generate(torch.tensor([[5, 7, 9]]), max_new_tokens=5, do_sample=False)
    assert json.loads(done.stdout) == expected.tolist()


def test_saving_replaces_an_older_model_and_leaves_nothing_beside_it(folder: Path) -> None:
    (folder / "stale.txt").write_text("old")
    newer = make.grafted("llama", "hc")
    save_model(newer, make.tokenizer(), folder)
    assert weight_digest(load_model(folder)[0]) == weight_digest(newer)
    assert not (folder / "stale.txt").exists()
    assert [path.name for path in folder.parent.iterdir() if "saved" in path.name] == ["saved"]


def test_a_save_that_fails_leaves_the_older_model_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weight_digest(load_model(folder)[0])
    model, tokenizer = make.grafted("llama", "hc"), make.tokenizer()
    monkeypatch.setattr(
        type(tokenizer), "save_pretrained", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        save_model(model, tokenizer, folder)
    monkeypatch.undo()
    assert weight_digest(load_model(folder)[0]) == before
    assert [path.name for path in folder.parent.iterdir() if "saved" in path.name] == ["saved"]


def test_a_stock_model_is_not_saved_as_a_grafted_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="expected a grafted model"):
        save_model(make.stock("llama"), make.tokenizer(), tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def flip_a_byte(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def rewrite_weights(folder: Path, change: str) -> None:
    """Weights that do not fit, with a matching digest, as somebody's own tool could write them."""
    weights = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp_residual.phi_res"
    if change == "drop":
        del weights[name]
    else:
        weights[name] = weights[name][:2].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["mhc_bench"]["weights"] = weight_digests(folder)
    (folder / "config.json").write_text(json.dumps(config))


def edit(folder: Path, **section: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["mhc_bench"] |= section
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "hint"),
    [
        (flip_a_byte, "model.safetensors: damaged, its SHA-256"),
        (truncate, "model.safetensors: damaged"),
        (lambda folder: (folder / "model.safetensors").unlink(), "weight file model.safetensors is missing"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "ll'), "not readable as JSON"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'),
            "config.json of another kind",
        ),
        (lambda folder: (folder / "tokenizer.json").unlink(), "damaged or incompatible"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "damaged or incompatible"),
        (lambda folder: rewrite_weights(folder, "drop"), "mlp_residual.phi_res"),
        (lambda folder: rewrite_weights(folder, "shrink"), "damaged or incompatible|mlp_residual.phi_res"),
        (lambda folder: edit(folder, variant="mhcc"), "did you mean 'mhc'"),
        (lambda folder: edit(folder, format=99), "checkpoint format 99, expected 1"),
        (lambda folder: edit(folder, options={"streems": 4}), "damaged or incompatible"),
        (lambda folder: edit(folder, weights={}), "names no weight files"),
    ],
)
def test_damage_is_named_in_one_line(folder: Path, damage: object, hint: str) -> None:
    damage(folder)  # type: ignore[operator]
    with pytest.raises(RunError, match=hint) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_an_unfinished_run_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(RunError, match="no finished model"):
        load_run(tmp_path)


def test_load_run_finds_the_final_model_of_a_run(tmp_path: Path) -> None:
    model = make.grafted("llama", "hc")
    save_model(model, make.tokenizer(), tmp_path / "checkpoints" / "final")
    found, tokenizer = mhc_bench.load_run(tmp_path)
    assert weight_digest(found) == weight_digest(model)
    assert tokenizer.eos_token_id == 1


def test_importing_the_package_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, mhc_bench; assert not {'torch', 'transformers', 'lightning'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert all(hasattr(mhc_bench, name) for name in mhc_bench.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'grafts'"):
        mhc_bench.grafts  # noqa: B018


def test_the_version_is_the_one_that_is_packaged() -> None:
    import tomllib

    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert mhc_bench.__version__ == packaged
