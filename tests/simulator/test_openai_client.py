"""The official client against the simulator: what it accepts, other clients accept."""

from collections.abc import AsyncIterator

import openai
import pytest

from webapp.simulator.answers import load_book
from webapp.simulator.text import split_tokens

HAIKU = load_book().find("haiku").text


@pytest.fixture
async def official(simulator: str) -> AsyncIterator[openai.AsyncOpenAI]:
    http = openai.DefaultAsyncHttpxClient(trust_env=False)
    async with openai.AsyncOpenAI(
        base_url=f"{simulator}/v1", api_key="none", max_retries=0, http_client=http
    ) as client:
        yield client


async def test_it_lists_the_models(official: openai.AsyncOpenAI) -> None:
    assert "quick" in [model.id async for model in official.models.list()]


async def test_it_reads_a_stream(official: openai.AsyncOpenAI) -> None:
    stream = await official.chat.completions.create(
        model="thinking",
        messages=[{"role": "user", "content": "Write a haiku"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    text, finish, usage = "", None, None
    async for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert text == HAIKU
    assert finish == "stop"
    assert usage is not None
    assert usage.completion_tokens_details is not None
    reasoning = usage.completion_tokens_details.reasoning_tokens
    assert reasoning
    assert usage.completion_tokens == len(split_tokens(HAIKU)) + reasoning


async def test_it_reads_a_whole_answer(official: openai.AsyncOpenAI) -> None:
    answer = await official.chat.completions.create(
        model="quick", messages=[{"role": "user", "content": "Write a haiku"}], max_completion_tokens=5
    )
    assert answer.choices[0].message.content == "".join(split_tokens(HAIKU)[:5])
    assert answer.choices[0].finish_reason == "length"


async def test_it_understands_the_errors(official: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        await official.chat.completions.create(model="gpt-99", messages=[{"role": "user", "content": "x"}])
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        await official.chat.completions.create(
            model="quick", messages=[{"role": "user", "content": "x"}], temperature=9
        )
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.RateLimitError):
        await official.chat.completions.create(model="quick+429", messages=[{"role": "user", "content": "x"}])
