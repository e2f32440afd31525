"""What transformers does not write into a saved model: the variant, and the shim that leads back here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mhc_bench.errors import RunError
from mhc_bench.files import file_digest, write_json, write_text
from mhc_bench.model.families import Family

FORMAT = 1
SECTION = "mhc_bench"
SHIM = "modeling_mhc_bench"


def describe_checkpoint(
    folder: Path, family: Family, variant: str, options: dict[str, Any], prefix: str
) -> None:
    """Complete the `config.json` that transformers wrote into `folder`, and write the shim beside it."""
    model_name, config_name = f"{prefix}{family.prefix}ForCausalLM", f"{prefix}{family.config_name}"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    section = {"format": FORMAT, "family": family.name, "variant": variant, "options": options}
    config |= {
        "architectures": [model_name],
        "model_type": f"mhc_bench_{family.config_class.model_type}",
        "auto_map": {"AutoConfig": f"{SHIM}.{config_name}", "AutoModelForCausalLM": f"{SHIM}.{model_name}"},
        SECTION: section | {"weights": weight_digests(folder)},
    }
    write_json(folder / "config.json", config)
    write_text(folder / f"{SHIM}.py", shim_source(model_name, config_name))


def shim_source(model_name: str, config_name: str) -> str:
    """The only code in a saved model: it imports the installed package."""
    return (
        '"""The code of this model is in the installed package: pip install mhc-bench."""\n\n'
        f"from mhc_bench.model.auto import {config_name}, {model_name}\n\n"
        f'__all__ = ["{config_name}", "{model_name}"]\n'
    )


def weight_digests(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 of each weight file in `folder`."""
    return {path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))}


def read_section(folder: Path) -> dict[str, Any]:
    """What `describe_checkpoint` wrote, with the weight files checked against it.

    Raises:
        RunError: the folder is missing, is no checkpoint of this package, or is damaged.
    """
    config = _read_config(folder)
    section = config.get(SECTION)
    if not isinstance(section, dict):
        raise RunError(f"{folder}: expected a model saved by mhc-bench, found a config.json of another kind")
    if section.get("format") != FORMAT:
        raise RunError(f"{folder}: checkpoint format {section.get('format')!r}, expected {FORMAT}")
    if missing := {"family", "variant", "options", "weights"} - section.keys():
        raise RunError(f"{folder}/config.json: damaged, {SECTION} lacks {', '.join(sorted(missing))}")
    _check_weights(folder, section["weights"])
    return section


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder; expected a saved model")
    if not path.is_file():
        raise RunError(f"{folder}: no config.json; expected a saved model")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: damaged, not readable as JSON ({error})") from error
    return config if isinstance(config, dict) else {}


def _check_weights(folder: Path, expected: dict[str, str]) -> None:
    if not expected:
        raise RunError(f"{folder}/config.json: damaged, it names no weight files")
    for name, digest in expected.items():
        path = folder / Path(name).name
        if not path.is_file():
            raise RunError(f"{folder}: weight file {name} is missing")
        if file_digest(path) != digest:
            raise RunError(f"{path}: damaged, its SHA-256 is not the one that was written with it")
