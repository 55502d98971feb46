"""The table of keys against the model, the example file and the docs."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from fastscreen.config import Config, load
from fastscreen.config.keys import KEYS, TABLES
from fastscreen.config.load import default_value
from tools import config_docs

ROOT = Path(__file__).resolve().parents[2]


PARAMETERS = """
access_list denylist_action blacklist_action client_connection_count_limit pre_queue_limit
post_queue_limit greet_banner greet_wait greet_action greet_ttl dnsbl_sites dnsbl_threshold
dnsbl_allowlist_threshold dnsbl_whitelist_threshold dnsbl_action dnsbl_reply_map dnsbl_timeout
dnsbl_min_ttl dnsbl_max_ttl dnsbl_ttl pipelining_enable pipelining_action pipelining_ttl
non_smtp_command_enable non_smtp_command_action non_smtp_command_ttl bare_newline_enable
bare_newline_action bare_newline_ttl forbidden_commands command_count_limit command_time_limit
command_filter helo_required disable_vrfy_command discard_ehlo_keywords
discard_ehlo_keyword_address_maps reject_footer reject_footer_maps expansion_filter cache_map
cache_cleanup_interval cache_retention_time allowlist_interfaces whitelist_interfaces
upstream_proxy_protocol upstream_proxy_timeout
"""


def model_keys() -> set[str]:
    """The keys that the model has fields for."""
    found = set()
    for field in msgspec.structs.fields(Config):
        if field.name == "source":
            continue
        if field.name in TABLES:
            found |= {f"{field.name}.{inner.name}" for inner in msgspec.structs.fields(field.type)}
        else:
            found.add(field.name)
    return found


def test_table_and_model_have_the_same_keys() -> None:
    assert sorted(key.key for key in KEYS) == sorted(model_keys())


def test_every_default_is_allowed() -> None:
    for key in KEYS:
        key.kind.parse(default_value(key))


def test_example_holds_every_key_and_default() -> None:
    text = (ROOT / "contrib/fastscreen.toml").read_text()
    section, found = "", {}
    for line in text.splitlines():
        if match := re.fullmatch(r"#\[(\w+)\]", line):
            section = f"{match[1]}."
        elif match := re.fullmatch(r"#(\w+) = (.+)", line):
            found[section + match[1]] = match[2]
        else:
            assert line == "" or line.startswith("## ")
    assert found == {key.key: key.default for key in KEYS}


def test_example_uncommented_is_the_defaults(tmp_path: Path) -> None:
    text = (ROOT / "contrib/fastscreen.toml").read_text()
    (tmp_path / "all.toml").write_text(re.sub(r"(?m)^#", "", text))
    (tmp_path / "none.toml").write_text(text)
    one, other = load(tmp_path / "all.toml"), load(tmp_path / "none.toml")
    assert msgspec.structs.replace(one, source="") == msgspec.structs.replace(other, source="")


def test_docs_hold_every_key_and_default() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    found = re.findall(r"(?m)^### `([\w.]+)`\n\n.+\n\n\* Default: `` (.+) ``$", text)
    assert found == [(key.key, key.default) for key in KEYS]


@pytest.mark.parametrize(
    ("name", "text"),
    [("docs/configuration.md", config_docs.page()), ("contrib/fastscreen.toml", config_docs.example())],
)
def test_generated_files_are_up_to_date(name: str, text: str) -> None:
    assert (ROOT / name).read_text() == text, "run: python -m tools.config_docs"


def test_the_first_try_of_the_docs_loads(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.+?)```", config_docs.INTRODUCTION, re.DOTALL)
    assert example
    (tmp_path / "fastscreen.toml").write_text(example[1])
    assert load(tmp_path / "fastscreen.toml").user == "postfix"


def test_no_parameter_of_postscreen_is_forgotten() -> None:
    """Reference 1.2, without TLS, PROXY and MX policy, and without parameters that are meaningless here."""
    names = {name for key in KEYS for name in key.parameters}
    assert {f"postscreen_{name}" for name in PARAMETERS.split()} <= names


@pytest.mark.parametrize("text", [*TABLES.values(), *(key.about for key in KEYS)])
def test_a_description_is_whole_sentences(text: str) -> None:
    """STYLE: each can be read alone, and a special value is a sentence."""
    assert re.fullmatch(r"[A-Z`].+\.", text)
    assert "\n" not in text
    assert not re.match(r"And |The same|As ", text)
    assert not re.search(r"[;:] (empty|`?\d+`?|left out|false|true):|left out|allowed:|any case", text)
