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


def replaced():
    pass


def finish(settings):
    pass


def build(settings, slot):
    return Dummy(settings, slot)


class Dummy:
    def __init__(self, settings, slot):
        self.settings, self.slot = settings, slot
        self.public = web.Server(self._answer)
        self.admin = self.desk = web.Server(self._status)
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
        totals = {
            "requests": {"hit": 3, "miss": 0},
            "client_bytes": 2048,
            "upstream_bytes": 1024,
            "saved_bytes": 1024,
            "request_hit_rate": 1.0,
            "byte_hit_rate": 0.5,
        }
        document = {
            "version": "0.1.0",
            "instance": "a1b2",
            "started": time.time() - 7300,
            "uptime": 7300.0,
            "now": time.time(),
            "workers": self.settings.server.workers,
            "health": os.environ.get("DUMMY_HEALTH", "ok"),
            "listen": self.settings.server.listen,
            "data": self.settings.server.data,
            "config": {"file": None, "refused": ""},
            "disk": {
                "free": 2**40,
                "total": 2**41,
                "cache_bytes": 3 * 2**29,
                "cache_objects": 7,
                "pinned_bytes": 0,
                "max_size": 50 * 2**30,
                "min_free": 2**31,
                "oldest_idle": 7300.0,
                "evicted_bytes": {"max_size": 1024, "min_free": 0},
                "pushed": None,
            },
            "today": {"date": "2026-11-23", **totals},
            "since_start": totals,
            "days": [{"date": f"2026-11-{day:02}", **totals} for day in range(23, 3, -1)],
            "upstreams": [
                {
                    "name": "registry.k8s.io",
                    "urls": ["https://registry.k8s.io"],
                    "up": False,
                    "circuit": "open",
                    "paused": 0,
                    "offline": False,
                    "last_error": {"error": "the name does not exist", "host": "registry.k8s.io", "time": 0.0},
                }
            ],
            "fills": [
                {"digest": "sha256:" + "ab" * 32, "bytes": 1024, "size": None, "rate": 0, "readers": 1, "image": "a/b"}
            ],
            "problems": [
                {
                    "client": "10.0.0.7",
                    "image": f"registry.k8s.io/pause:{number}\x1b",
                    "upstream": "registry.k8s.io",
                    "status": 503,
                    "sentence": "the name does not exist",
                    "count": number + 1,
                    "first": 0.0,
                    "last": 50.0 - number,
                }
                for number in range(50)
            ],
        }
        return web.json_response(document)
