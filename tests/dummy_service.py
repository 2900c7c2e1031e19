"""A compose module that serves nothing of a registry: it tells which worker answered, sleeps, and dies on demand.

Used by name from tests of the supervisor and the commands, in processes of their own.
"""

import asyncio
import os
import time

from aiohttp import web

from proxy.errors import StartError


def prepare(settings):
    if os.environ.get("DUMMY_PREPARE"):
        raise StartError(os.environ["DUMMY_PREPARE"])


def check(settings):
    if settings.server.url == "http://refused":
        raise StartError("not with this URL")


def finish(settings):
    pass


def build(settings, slot):
    return Dummy(settings, slot)


class Dummy:
    def __init__(self, settings, slot):
        self.settings, self.slot = settings, slot
        self.public = web.Server(self._answer)
        self.admin = web.Server(self._status)
        self.tls = lambda: None

    async def start(self):
        if self.settings.server.url == "http://broken":
            raise StartError("broken")
        if os.environ.get("DUMMY_START"):
            raise StartError(os.environ["DUMMY_START"])

    async def drain(self, seconds):
        await self.public.shutdown(seconds)

    async def close(self):
        await self.admin.shutdown(1)

    async def _answer(self, request):
        if request.path == "/die":
            os._exit(3)
        if request.path == "/spin":
            time.sleep(float(request.query["s"]))  # noqa: ASYNC251 - a loop that is busy is what is wanted
        await asyncio.sleep(float(request.query.get("s", 0)))
        return web.Response(text=f"{self.slot} {os.getpid()} {os.environ['PROMETHEUS_MULTIPROC_DIR']}")

    async def _status(self, request):
        document = {
            "version": "0.1.0",
            "instance": "a1b2",
            "started": time.time() - 7300,
            "workers": self.settings.server.workers,
            "health": os.environ.get("DUMMY_HEALTH", "ok"),
            "reload_refused": "",
            "listen": self.settings.server.listen,
            "data": self.settings.server.data,
            "disk": {
                "free": 2**40,
                "total": 2**41,
                "cache_bytes": 3 * 2**29,
                "cache_objects": 7,
                "pinned_bytes": 0,
                "max_size": 50 * 2**30,
                "min_free": 2**31,
            },
            "requests": {"hit": 3, "miss": 0},
            "client_bytes": 2048,
            "upstream_bytes": 1024,
            "saved_bytes": 1024,
            "upstreams": [
                {
                    "name": "registry.k8s.io",
                    "urls": ["https://registry.k8s.io"],
                    "up": False,
                    "circuit": "open",
                    "paused": 0,
                }
            ],
            "fills": [{"digest": "sha256:" + "ab" * 32, "bytes": 1024, "size": None}],
        }
        return web.json_response(document)
