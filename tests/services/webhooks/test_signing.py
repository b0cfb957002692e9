"""Signatures of webhooks, against the specification and against what reads them elsewhere."""

from __future__ import annotations

import base64
import time

import openai
import pytest

from greenroom.actors.errors import ConfigurationError
from greenroom.services.webhooks.signing import Signer
from kits.webhook_receiver import SECRET, Received

OTHER = "whsec_" + base64.b64encode(bytes(range(24))).decode()
BODY = b'{"id":"evt_1","object":"event","type":"response.completed","created_at":1,"data":{"id":"resp_1"}}'


def test_an_example_that_is_published_with_its_signature() -> None:
    signer = Signer.of("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
    body = b'{"email":"test@example.com","username":"test_user"}'
    assert signer.headers("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1649367553.9, body) == {
        "webhook-id": "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        "webhook-timestamp": "1649367553",
        "webhook-signature": "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    }


def test_what_reads_openais_webhooks_reads_ours() -> None:
    client = openai.OpenAI(api_key="any", webhook_secret=SECRET)
    headers = Signer.of(SECRET).headers("evt_1", time.time(), BODY)
    event = client.webhooks.unwrap(BODY, headers)
    assert event.type == "response.completed"
    assert event.data.id == "resp_1"
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(BODY + b" ", headers)


def test_with_two_secrets_a_receiver_needs_one_of_them() -> None:
    headers = Signer.of(f"{SECRET} {OTHER}").headers("evt_1", 1.0, BODY)
    for secret in (SECRET, OTHER):
        Received(headers, BODY).check(secret)
    with pytest.raises(AssertionError):
        Received(Signer.of(OTHER).headers("evt_1", 1.0, BODY), BODY).check(SECRET)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a secret",
        "whsec_",
        "whsec_AAAA",
        SECRET[6:],
        SECRET + "!",
        f"{SECRET} nonsense",
        "whsec_" + "A" * 100,
    ],
)
def test_what_is_no_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Signer.of(text)
    assert len(text) < len(SECRET) or text not in refused.value.message
