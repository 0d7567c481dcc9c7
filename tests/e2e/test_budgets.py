"""Budgets over HTTP, with many clients at once and a model that costs money."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from semaforo.build import blueprint
from served_fleet import serving
from upstream import Upstream

FLEET = """\
tasks: {{chat: {{kind: chat, prefer: {{maximise: quality}}}}}}
models:
  big:
    task: chat
    url: {url}/v1
    key: secret
    cost: {{request: 0.01, output: 1000}}
    quality: 0.9
    stream: {{slots: 64}}
    options: {{model: bigram}}
budgets:
  tenants: {{acme: {{spend: 0.51, per: 1h}}}}
"""
WORDS, EACH = 4, 0.014
"""Tokens that are asked for at most, and US dollars that they can cost with the price of a request."""


def test_64_clients_never_spend_a_cent_too_much_and_the_last_affordable_one_is_served(tmp_path: Path) -> None:
    with Upstream(key="secret") as upstream:
        (tmp_path / "fleet.yaml").write_text(FLEET.format(url=upstream.url.removesuffix("/v1")))
        plan = blueprint(tmp_path / "fleet.yaml")
        with (
            serving(plan.catalog, secrets=plan.secrets) as served,
            httpx.Client(base_url=served.url, timeout=30) as http,
        ):

            def ask(number: int) -> tuple[int, str]:
                body = {
                    "model": "chat", "max_tokens": WORDS,
                    "messages": [{"role": "user", "content": f"the train {number}"}],
                }  # fmt: skip
                headers = {"semaforo-tenant": "acme"}
                response = http.post("/v1/chat/completions", json=body, headers=headers)
                return response.status_code, response.headers.get("semaforo-request-id", "")

            with ThreadPoolExecutor(64) as clients:
                answers = list(clients.map(ask, range(256)))
            good = [rid for status, rid in answers if status == 200]
            assert {status for status, _ in answers} == {200, 429}
            account = served.call(lambda: served.engine._dispatcher.state.accounts["tenant:acme"])
            assert account.reserved == 0.0
            assert account.spent <= 0.51
            told = [http.get(f"/semaforo/v1/decisions/{rid}").json()["finish"]["cost"] for rid in good]
            assert sum(told) == pytest.approx(account.spent)
            # One at a time until no more fits: then what is left is less than one may cost.
            while ask(-1)[0] == 200:
                pass
            account = served.call(lambda: served.engine._dispatcher.state.accounts["tenant:acme"])
            assert 0.51 - EACH < account.spent <= 0.51
            refused = httpx.post(
                f"{served.url}/v1/chat/completions",
                json={"model": "chat", "max_tokens": WORDS, "messages": [{"role": "user", "content": "x"}]},
                headers={"semaforo-tenant": "acme"},
            )
            assert "left of $0.51 per 1h for tenant acme" in refused.json()["error"]["message"]
            assert int(refused.headers["retry-after"]) > 3000


def test_a_client_that_goes_away_in_the_middle_of_a_stream_has_paid_for_what_was_said(tmp_path: Path) -> None:
    with Upstream(key="secret", word_s=0.05) as upstream:
        (tmp_path / "fleet.yaml").write_text(FLEET.format(url=upstream.url.removesuffix("/v1")))
        plan = blueprint(tmp_path / "fleet.yaml")
        with serving(plan.catalog, secrets=plan.secrets) as served:
            accounts = served.call(lambda: served.engine._dispatcher.state.accounts)
            body = {
                "model": "chat", "max_tokens": 100, "stream": True,
                "messages": [{"role": "user", "content": "the train"}],
            }  # fmt: skip
            url, headers = f"{served.url}/v1/chat/completions", {"semaforo-tenant": "acme"}
            with httpx.stream("POST", url, json=body, headers=headers, timeout=30) as response:
                said = 0
                for line in response.iter_lines():
                    said += '"content"' in line
                    if said == 4:
                        break
            upstream.wait(lambda: not accounts["tenant:acme"].reserved)
            # Words that were on their way when the client left are paid for, too.
            assert accounts["tenant:acme"].spent >= 0.01 + 2.9 * 0.001
            assert accounts["tenant:acme"].spent < 0.01 + 20 * 0.001
