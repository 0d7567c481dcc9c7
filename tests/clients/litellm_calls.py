"""Calls by litellm as a client, run in its environment: prints what came of each as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would ask the internet for prices otherwise

import litellm

BASE: dict[str, Any] = {"api_base": sys.argv[1] + "/v1", "api_key": "none", "max_retries": 0, "timeout": 20}
MESSAGES = [{"role": "user", "content": "the slow train"}]
litellm.suppress_debug_info = True


def chat(model: str = "openai/chat", **more: Any) -> Any:
    return litellm.completion(model=model, **BASE, **({"messages": MESSAGES} | more))


def whole() -> dict[str, Any]:
    answer = chat(max_tokens=12)
    choice = answer.choices[0]
    return {
        "text": choice.message.content,
        "finish": choice.finish_reason,
        "model": answer.model,
        "tokens": answer.usage.completion_tokens,
        "prompt tokens": answer.usage.prompt_tokens,
    }


def streamed(**more: Any) -> dict[str, Any]:
    parts, usage, finish = [], None, None
    for chunk in chat(stream=True, stream_options={"include_usage": True}, max_tokens=12, **more):
        usage = getattr(chunk, "usage", None) or usage
        for choice in chunk.choices:
            parts += [choice.delta.content] if choice.delta.content else []
            finish = choice.finish_reason or finish
    return {"parts": parts, "finish": finish, "tokens": usage.completion_tokens if usage else None}


async def many() -> list[str]:
    async def one(number: int) -> str:
        asked = [{"role": "user", "content": f"{number} train"}]
        stream = await litellm.acompletion(
            model="openai/chat", messages=asked, stream=True, max_tokens=8 + number, **BASE
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    return await asyncio.gather(*map(one, range(16)))


def failed(call: Callable[[], Any]) -> list[Any]:
    try:
        return ["answered", str(call())]
    except Exception as error:
        return [type(error).__name__, getattr(error, "status_code", None), str(error)]


def main() -> None:
    text = litellm.text_completion(
        model="text-completion-openai/chat", prompt="the slow train", max_tokens=5, **BASE
    )
    vectors = litellm.embedding(model="openai/embed", input=["the signal", "a box"], **BASE)
    judged = litellm.moderation(model="moderate", custom_llm_provider="openai", input="you idiot", **BASE)
    print(
        json.dumps(
            {
                "whole": whole(),
                "streamed": streamed(),
                "stopped": chat("openai/writer", stop=["train"], max_tokens=50).choices[0].message.content,
                "limited": chat("openai/writer", max_tokens=3).choices[0].finish_reason,
                "contract": chat(extra_headers={"semaforo-privacy": "site"}).model,
                "text": text.choices[0].text,
                "vectors": [one["embedding"] for one in vectors.data],
                "flagged": judged.results[0].flagged,
                "many": asyncio.run(many()),
                "unknown model": failed(lambda: chat("openai/chatt")),
                "wrong field": failed(lambda: chat(extra_body={"service_tier": "fast"})),
                "out of contract": failed(lambda: chat(extra_headers={"semaforo-min-quality": "1"})),
                "model fails": failed(lambda: chat("openai/broken")),
                "stream fails": failed(lambda: streamed(model="openai/breaks")),
            }
        )
    )


main()
