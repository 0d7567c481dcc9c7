from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semaforo.features import chat_affinity, chat_needs, chat_tokens, text_tokens


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def image(detail: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": detail}}


AUDIO = {"type": "input_audio", "input_audio": {"data": "A" * 64_000, "format": "wav"}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        # The bounds hold the counts of public byte-pair vocabularies for these sentences.
        ("The quick brown fox jumps over the lazy dog, and nobody minds.", 12, 18),
        ("Съешь же ещё этих мягких французских булок, да выпей чаю.", 14, 30),
        ("我能吞下玻璃而不伤身体。", 8, 18),
        ("", 0, 0),
        ("a", 1, 1),
        ("\ud800", 1, 1),
    ],
)
def test_tokens_of_a_text(text: str, least: int, most: int) -> None:
    assert least <= text_tokens(text) <= most


@given(st.text(), st.text())
def test_more_text_is_never_fewer_tokens(one: str, two: str) -> None:
    assert text_tokens(one) <= text_tokens(one + two) <= text_tokens(one) + text_tokens(two)


def test_images_audio_and_tools_count() -> None:
    plain = chat_tokens({"messages": [user("hello there")]})
    assert plain == 4 + 3
    text = {"type": "text", "text": "hello there"}
    assert chat_tokens({"messages": [user([text, image("high")])]}) == plain + 765
    assert chat_tokens({"messages": [user([text, image("low")])]}) == plain + 85
    assert chat_tokens({"messages": [user([text, AUDIO])]}) == plain + 11
    assert chat_tokens({"messages": [user("hello there")], "tools": [TOOL]}) > plain + 15


@pytest.mark.parametrize(
    ("body", "needs"),
    [
        ({"messages": [user("hi")]}, ()),
        ({"messages": [user("hi")], "tools": []}, ()),
        ({"messages": [user("hi")], "tools": [TOOL]}, ("tools",)),
        ({"messages": [user("hi")], "tools": [TOOL], "tool_choice": "none"}, ()),
        ({"messages": [user("hi"), {"role": "tool", "content": "4", "tool_call_id": "a"}]}, ("tools",)),
        ({"messages": [user([image("low")])]}, ("vision",)),
        ({"messages": [user([AUDIO])]}, ("audio",)),
        ({"messages": [user("hi")], "modalities": ["text", "audio"]}, ("audio",)),
        ({"messages": [user("hi")], "response_format": {"type": "json_object"}}, ()),
        ({"messages": [user("hi")], "response_format": {"type": "json_schema"}}, ("schema",)),
        (
            {"messages": [user([image("low")])], "tools": [TOOL], "response_format": {"type": "json_schema"}},
            ("schema", "tools", "vision"),
        ),
    ],
)
def test_needs(body: dict[str, Any], needs: tuple[str, ...]) -> None:
    assert chat_needs(body) == needs


def test_the_turns_of_one_conversation_share_a_key_and_others_do_not() -> None:
    system = {"role": "system", "content": "Be brief."}
    first = [system, user("What is a bobby?")]
    later = [*first, {"role": "assistant", "content": "A box boy."}, user("And a loop?")]
    key = chat_affinity({"messages": first})
    assert len(key) == 16
    assert int(key, 16) >= 0
    assert chat_affinity({"messages": later, "temperature": 1}) == key
    assert chat_affinity({"messages": [system, user("What is a loop?")]}) != key
    assert chat_affinity({"messages": first, "tools": [TOOL]}) != key
    assert chat_affinity({"messages": first}, "another tenant") != key


def test_a_long_system_prompt_is_shared_by_all_conversations_that_begin_with_it() -> None:
    system = {"role": "system", "content": "Be brief. " * 1000}
    one = chat_affinity({"messages": [system, user("one")]})
    assert one == chat_affinity({"messages": [system, user("two")]})


def test_a_prompt_cache_key_decides_alone() -> None:
    one = chat_affinity({"messages": [user("one")], "prompt_cache_key": "k"})
    assert one == chat_affinity({"messages": [user("two")], "prompt_cache_key": "k"})
    assert one != chat_affinity({"messages": [user("one")], "prompt_cache_key": "l"})
    assert chat_affinity({}) == ""
