"""The actor on PyPI's iii-sdk, 0.22 and 0.25; what it does stands in ../README.md. It must not know who calls it or why."""

import asyncio
import json
import os
import sys
import warnings
import zlib
from importlib.metadata import version
from typing import Any

# 0.25 calls triggers deprecated; they are what is tested.
warnings.simplefilter("ignore", FutureWarning)

from iii import InitOptions, TriggerAction, register_worker  # noqa: E402
from iii.helpers import create_channel_async  # noqa: E402
from iii.trigger import TriggerHandler  # noqa: E402
from iii_helpers.observability import Logger  # noqa: E402

if len(sys.argv) != 3:
    sys.exit("usage: actor.py URL NAME")
url, name = sys.argv[1:]

iii = register_worker(url, InitOptions(worker_name=name))
logger = Logger(service_name=name)

notes: list[dict[str, Any]] = []
triggers: dict[str, Any] = {}
providers: dict[str, "Provider"] = {}
observers: dict[str, Any] = {}


def serve(handler):
    """Registers a function of this actor under its Python name."""
    iii.register_function(f"{name}::{handler.__name__.strip('_')}", handler)
    return handler


def unstamped(data: Any) -> tuple[Any, Any]:
    """An object as whoever called has sent it, and who that was."""
    if not isinstance(data, dict):
        return data, None
    rest = {key: value for key, value in data.items() if key != "_caller_worker_id"}
    return rest, data.get("_caller_worker_id")


def action(wanted: dict[str, Any] | None):
    if not wanted:
        return None
    return TriggerAction.Void() if wanted["type"] == "void" else TriggerAction.Enqueue(queue=wanted["queue"])


def pattern(length: int) -> bytes:
    return bytes((31 * i + (i >> 8)) & 0xFF for i in range(length))


async def drain(reader) -> dict[str, Any]:
    """Everything that a channel brings until it ends."""
    texts: list[str] = []
    reader.on_message(texts.append)
    came = await reader.read_all()
    return {"bytes": len(came), "sum": zlib.adler32(came), "texts": texts}


async def fill(writer, length: int, texts: list[str]) -> None:
    """Writes texts, then so many bytes, and closes."""
    for text in texts:
        await writer.send_message_async(text)
    await writer.write(pattern(length))
    await writer.close_async()


@serve
async def identity(_data):
    return {"name": name, "sdk": f"PyPI {version('iii-sdk')}", "pid": os.getpid()}


@serve
async def echo(data, metadata=None):
    came, caller = unstamped(data)
    return {"data": came, "caller": caller, "metadata": metadata}


@serve
def add(data: dict[str, Any]) -> dict[str, Any]:
    return {"sum": data["a"] + data["b"]}


@serve
async def fail(data):
    raise ValueError(data["message"])


@serve
async def silent(_data):
    return None


@serve
async def wait(data):
    await asyncio.sleep(data["ms"] / 1000)
    return {"waited": data["ms"]}


@serve
async def call(data):
    request = {"function_id": data["function"], "payload": data.get("data"), "action": action(data.get("action"))}
    request |= {key: data[key] for key in ("metadata", "timeout_ms") if data.get(key) is not None}
    try:
        answer = await iii.trigger_async(request)
        return {"ok": answer.model_dump() if hasattr(answer, "model_dump") else answer}
    except Exception as error:  # whatever the SDK raises is what is told
        return {"error": {"code": getattr(error, "code", ""), "message": getattr(error, "message", str(error))}}


@serve
async def relay(data):
    match data["path"]:
        case [following, *path]:
            return [name, *await iii.trigger_async({"function_id": following, "payload": {"path": path}})]
        case _:
            return [name]


@serve
async def note(data, metadata=None):
    notes.append({"data": unstamped(data)[0], "metadata": metadata})


@serve
async def noted(_data):
    return {"notes": notes}


@serve
async def log(data):
    getattr(logger, data["level"])(data["message"], {"actor": name})


@serve
async def bind(data):
    wanted = {"type": data["type"], "function_id": data["function"], "config": data.get("config")}
    if data.get("metadata") is not None:
        wanted["metadata"] = data["metadata"]
    triggers[data["key"]] = iii.register_trigger(wanted)


@serve
async def unbind(data):
    if bound := triggers.pop(data["key"], None):
        bound.unregister()


class Provider(TriggerHandler[Any]):
    """The triggers of one type that this actor was given."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    async def register_trigger(self, config) -> None:
        if isinstance(config.config, dict) and config.config.get("refuse"):
            raise ValueError(config.config["refuse"])
        self.given[config.id] = config

    async def unregister_trigger(self, config) -> None:
        self.given.pop(config.id, None)


@serve
async def provide(data):
    providers[data["type"]] = provider = Provider()
    iii.register_trigger_type({"id": data["type"], "description": f"fired by {name}"}, provider)


@serve
async def bindings(data):
    provider = providers.get(data["type"])
    return {"bindings": [given.model_dump() for given in provider.given.values()] if provider else []}


@serve
async def fire(data):
    provider = providers.get(data["type"])
    given = list(provider.given.values()) if provider else []
    for one in given:
        request = {"function_id": one.function_id, "payload": data.get("data"), "metadata": one.metadata}
        await iii.trigger_async(request)
    return {"fired": len(given)}


@serve
async def observe(data):
    source = {"function_id": data["source"]}
    for part in ("args", "filters"):
        if data.get(part) is not None:
            source[part] = data[part]
    options = {"metadata": data["metadata"]} if data.get("metadata") is not None else None
    handle = observers[data["key"]] = iii.observe(source, data["target"], options)
    try:
        await asyncio.wait_for(handle.ready_async(), 10)
    except Exception:  # the state and its reason tell
        pass
    return {"state": handle.state, "reason": handle.reason}


@serve
async def unobserve(data):
    handle = observers.pop(data["key"], None)
    if handle is not None:
        await handle.dispose_async()


@serve
async def push(data):
    channel = await create_channel_async(iii)
    request = {"function_id": data["to"], "payload": {"reader": channel.reader_ref.model_dump()}}
    answer = asyncio.ensure_future(iii.trigger_async(request))
    await fill(channel.writer, data["bytes"], data["texts"])
    return await answer


@serve
async def receive(data):
    return await drain(data["reader"])


@serve
async def pull(data):
    channel = await create_channel_async(iii)
    payload = {"writer": channel.writer_ref.model_dump(), "bytes": data["bytes"], "texts": data["texts"]}
    poured = iii.trigger_async({"function_id": data["from"], "payload": payload})
    came, _ = await asyncio.gather(drain(channel.reader), poured)
    return came


@serve
async def pour(data):
    await fill(data["writer"], data["bytes"], data["texts"])
    return {"poured": data["bytes"]}


@serve
async def answer(data):
    body = {"name": name} | {key: data.get(key) for key in ("method", "path_params", "query_params", "body")}
    return {"status_code": 201, "headers": {"x-actor": name}, "body": body}


@serve
async def stream_answer(data):
    response = data["response"]
    await response.send_message_async(json.dumps({"type": "set_status", "status_code": 202}))
    await response.send_message_async(json.dumps({"type": "set_headers", "headers": {"x-actor": name}}))
    await response.write(b"first,")
    await response.write(b"second")
    await response.close_async()


@serve
async def body(data):
    came = await drain(data["request_body"])
    return {"status_code": 200, "body": {"bytes": came["bytes"], "sum": came["sum"]}}


sys.stdin.read()
iii.shutdown()
