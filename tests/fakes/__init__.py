"""Servers written for the tests: on port 0, in the test's own loop or in a thread, each with a log the tests count."""

from tests.fakes.auth import Basic, Bearer
from tests.fakes.faults import (
    CloseDelimited,
    Cut,
    Delay,
    Drip,
    Fault,
    Flip,
    GzipRange,
    Hangup,
    Html,
    IgnoreRange,
    NoLength,
    Silence,
    Stall,
    Status,
    WrongLength,
    WrongRangeStart,
    WrongRangeTotal,
)
from tests.fakes.log import Log, Request
from tests.fakes.origin import Image, Origin
from tests.fakes.pkgdev import PkgDev
from tests.fakes.redirector import Redirector
from tests.fakes.thread import in_thread, origin_in_thread

__all__ = [
    "Basic",
    "Bearer",
    "CloseDelimited",
    "Cut",
    "Delay",
    "Drip",
    "Fault",
    "Flip",
    "GzipRange",
    "Hangup",
    "Html",
    "IgnoreRange",
    "Image",
    "Log",
    "NoLength",
    "Origin",
    "PkgDev",
    "Redirector",
    "Request",
    "Silence",
    "Stall",
    "Status",
    "WrongLength",
    "WrongRangeStart",
    "WrongRangeTotal",
    "in_thread",
    "origin_in_thread",
]
