"""What a record must not tell: whose home it was made in, and secrets in its command or settings."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HIDDEN = "[hidden]"
SECRET_NAME = re.compile(r"token$|secret|passw|api_?key|access_?key|private_?key|credential", re.IGNORECASE)
"""Of variables of the environment, of settings and of overrides."""
KNOWN_FORMS = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|sk-[\w-]{20,}|AKIA[A-Z0-9]{16}"
    r"|glpat-[\w-]{20,}|xox[a-z]-[\w-]{10,}|AIza[\w-]{35})(?![\w-])"
)
"""Tokens of Hugging Face, GitHub, OpenAI, AWS, GitLab, Slack and Google, whatever they are called."""
BEARER = re.compile(r"\b(Bearer\s+)[\w.~+/-]{8,}=*", re.IGNORECASE)
"""The token of a header; a shorter word is one of a text."""
PASSWORD = re.compile(r"(?<=://)[^\s/]+@")
"""Who opens an address, and with what: all before the last @ of its host."""
HOME = re.compile(r"(?<![\w.~-])/(?:home|Users)/[^\s/:;,'\"()\[\]{}]+")
"""Somebody's home folder, also where it is not that of this process."""
ASSIGNMENT = re.compile(r"(\w+)([=:]\s*['\"]?)([^\s,}\]'\"\[{]+)")
"""`name=value` of an override, `name: value` of YAML."""
SHORTEST = 8
"""Characters of a secret: a shorter value would be found by chance in harmless text."""


def hidden(content: Any) -> Any:
    """Plain content with the home folder as `~` and without secrets."""
    if isinstance(content, Mapping):
        return {key: _setting(str(key), value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [hidden(value) for value in content]
    return _hidden_text(content) if isinstance(content, str) else content


def _setting(name: str, value: Any) -> Any:
    return HIDDEN if isinstance(value, str) and value and SECRET_NAME.search(name) else hidden(value)


def _hidden_text(text: str) -> str:
    for secret in _secrets():
        text = text.replace(secret, HIDDEN)
    text = KNOWN_FORMS.sub(HIDDEN, text)
    text = BEARER.sub(rf"\1{HIDDEN}", text)
    text = PASSWORD.sub(f"{HIDDEN}@", text)
    text = ASSIGNMENT.sub(_hidden_assignment, text)
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(rf"{re.escape(home)}(?![\w.-])", "~", text)
    return HOME.sub("~", text)


def _hidden_assignment(found: re.Match[str]) -> str:
    name, between, value = found.groups()
    return f"{name}{between}{HIDDEN if SECRET_NAME.search(name) else value}"


def _secrets() -> list[str]:
    """Values of this environment that its names call secret, the longest first."""
    values = {value for name, value in os.environ.items() if SECRET_NAME.search(name)}
    return sorted((value for value in values if len(value) >= SHORTEST), key=len, reverse=True)
