"""The uvicorn server of one process."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from model_trainer.serving.http_server import HttpServer
from model_trainer.serving.options import ServeOptions
from model_trainer.serving.server import bind


def test_a_server_in_a_thread_can_be_stopped() -> None:
    options = ServeOptions(port=0)
    server = HttpServer(lambda *_: None, SimpleNamespace(stop=lambda: None), options)

    async def body() -> None:
        server.should_exit = True
        await server.serve(sockets=[bind(options.host, 0)])

    asyncio.run(body())
