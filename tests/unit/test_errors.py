from __future__ import annotations

import pickle
from inspect import isclass

import pytest

from leastwise import errors
from leastwise.errors import LeastwiseError, UnknownPriceError, UpstreamFailure

ALL = [value for value in vars(errors).values() if isclass(value) and issubclass(value, LeastwiseError)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_tree_and_says_how_a_gateway_answers(kind: type[LeastwiseError]) -> None:
    assert kind.__name__ in (errors.__doc__ or "")
    assert (kind.http_status, kind.api_type) in {
        (400, "invalid_request_error"),
        (402, "billing_error"),
        (500, "api_error"),
        (503, "api_error"),
    }


def test_an_unknown_price_names_the_model_and_the_mend() -> None:
    error = UnknownPriceError("llama4", "ollama")

    assert ("llama4", "ollama", 400) == (error.model, error.provider, error.http_status)
    assert str(error).startswith(
        "no price for model 'llama4' of provider 'ollama'. Check the spelling, add a "
    )
    assert str(error).endswith('unpriced = "allow"')


def test_an_unknown_price_survives_the_way_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(UnknownPriceError("llama4", "ollama")))  # noqa: S301 - just made

    assert str(UnknownPriceError("llama4", "ollama")) == str(error)
    assert "ollama" == error.provider


def test_a_failed_attempt_carries_the_original_and_what_came_with_it() -> None:
    cause = ValueError("as the library said it")
    error = UpstreamFailure(cause, status=529, headers={"retry-after": "3"}, request_id="req_1")

    assert (cause, 529, {"retry-after": "3"}, True, "req_1") == (
        error.cause,
        error.status,
        error.headers,
        error.was_sent,
        error.request_id,
    )
    assert "upstream attempt failed: status 529" == str(error)


def test_an_attempt_without_an_answer_names_the_cause_but_not_its_text() -> None:
    error = UpstreamFailure(TimeoutError("secret"), was_sent=False)

    assert "upstream attempt failed: TimeoutError" == str(error)
    assert (None, False, {}, None) == (error.status, error.was_sent, dict(error.headers), error.request_id)
