"""The `openai` backend: any server of the chat completions format, over the lean seam or a client of the user's own.

    model = openai("qwen2.5-vl-72b", base_url=["http://gpu1:8000/v1", "http://gpu2:8000/v1"])
    [completion] = await model.chat([Message(role="user", content="Say hello.")], Sampling())

Calls go out one by one (`chat_completions`), or gathered into jobs of the Batch API (`batch`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

from insightv.backends.openai.address import Address, Proxy, addresses_of, check_amounts, check_proxy, key_from
from insightv.backends.openai.fit import Structured, fit_of
from insightv.backends.openai.http import HttpTransport, Transport
from insightv.backends.openai.model import DEFAULT_KEY, MAX_REPLY_BYTES, OpenAIModel
from insightv.errors import ConfigError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from insightv.backends.openai.batch import BatchModel


@overload
def openai(model: str, *, mode: Literal["chat"] = "chat", **options: Any) -> OpenAIModel: ...
@overload
def openai(model: str, *, mode: Literal["batch"], **options: Any) -> BatchModel: ...
def openai(  # type: ignore[misc]  # the options are those named here
    model: str,
    *,
    base_url: str | list[str] | None = None,
    api_key_env: str | None = None,
    structured: Structured | None = None,
    profile: str | None = None,
    omit: Sequence[str] | None = None,
    rename: Mapping[str, str] | None = None,
    system: str | None = None,
    deadline_s: float = 600.0,
    connections: int = 1024,
    max_reply_bytes: int = MAX_REPLY_BYTES,
    proxy: Proxy | None = None,
    client: AsyncOpenAI | None = None,
    mode: Literal["chat", "batch"] = "chat",
    gather_s: float = 2.0,
    poll_s: float = 30.0,
) -> OpenAIModel | BatchModel:
    """A model of a chat completions server.

    `base_url`: one or several servers of the same model; by default OPENAI_BASE_URL, or the public API. The key is
    read from the environment variable `api_key_env`, which must then be set; without it from OPENAI_API_KEY, where that
    is set, for a server of one's own may need none. `structured`: how a schema is asked for ("json" and "prompt" are
    for servers without json_schema; the prompts say the format in words too), "schema" where a profile says nothing
    else. `profile`: the name of a service whose ways are known (`PROFILES` of `insightv.backends.openai.fit`). `omit`:
    fields of the request to leave out, `rename`: their names at this server, `system`: the role of instructions, "user"
    to put them into the user's first turn. A field that the server refuses by name is left out from then on.
    `deadline_s` bounds one call with its tries and waits. `connections` is the most requests at one moment; it should
    not be below the servers' slots. `proxy` "environment": reach them through the proxies that HTTP_PROXY, HTTPS_PROXY,
    ALL_PROXY and NO_PROXY name, not directly. `client`: reach the server through this client instead, whatever its
    base_url; it must keep to one event loop.
    `mode` "batch" sends calls as jobs of the Batch API: one when no call has come for `gather_s`, polled each `poll_s`.

    Raises:
        ConfigError: a setting cannot be used.
    """
    proxy = proxy or "none"
    _check(model, mode, proxy)
    check_amounts(deadline_s=deadline_s, connections=connections, max_reply_bytes=max_reply_bytes)
    check_amounts(gather_s=gather_s, poll_s=poll_s)
    fit = fit_of(profile, omit, rename, system, structured)
    if client is not None and (base_url is not None or proxy != "none"):
        raise ConfigError("a client is given, and a base_url or a proxy; the client has its own, leave one out")
    addresses = _addresses(base_url, api_key_env, client)
    if proxy == "environment":
        for address in addresses:
            check_proxy(address.url)
    if mode == "batch":
        from insightv.backends.openai.batch import BatchModel

        return BatchModel(
            model,
            addresses=addresses,
            client=client,
            proxy=proxy,
            fit=fit,
            deadline_s=deadline_s,
            gather_s=gather_s,
            poll_s=poll_s,
        )
    transport: Transport = HttpTransport(max_reply_bytes=max_reply_bytes, proxy=proxy)
    if client is not None:
        from insightv.backends.openai.sdk_transport import SdkTransport

        transport = SdkTransport(client, max_reply_bytes=max_reply_bytes)
    return OpenAIModel(
        model,
        addresses=addresses,
        transport=transport,
        fit=fit,
        deadline_s=deadline_s,
        connections=connections,
        api_key_env=api_key_env or DEFAULT_KEY,
    )


def _addresses(base_url: str | list[str] | None, api_key_env: str | None, client: AsyncOpenAI | None) -> list[Address]:
    if client is None:
        variable = api_key_env or DEFAULT_KEY
        key = key_from(variable)
        if key is None and api_key_env is not None:
            raise ConfigError(
                f"the environment variable {api_key_env}, which api_key_env names, is not set; set it, or leave "
                "api_key_env out for a server without a key"
            )
        return addresses_of(base_url, key, variable)
    from insightv.backends.openai.sdk_transport import address_of

    return [address_of(client)]


def _check(model: str, mode: str, proxy: str) -> None:
    if not model:
        raise ConfigError("the model's name is empty; write it like 'openai/qwen2.5-vl-72b'")
    if mode not in ("chat", "batch"):
        raise ConfigError(f'mode is {mode!r}; it is "chat" or "batch"')
    if proxy not in get_args(Proxy):
        raise ConfigError(f'proxy is {proxy!r}; it is "none" or "environment"')
