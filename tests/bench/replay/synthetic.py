"""A made-up month of a cluster, the same for the same seed. Nobody's traffic: every number below was chosen by hand.

Content. 400 applications on 15 base images (which one by Zipf), a base 1-3 layers of about 30 MiB, republished every
45 days; an application 1-5 layers of its own (lognormal, median 3 MiB, mean 15 MiB), one in 50 with a layer of
1-4 GiB as machine learning has it; a new version every 10 days on average, half of its own layers kept. A manifest
and a config of some KiB each. Beside them the 25 images a Kubernetes cluster needs, on one small base of their own.

Load, in any mixture:
- zipf: 1200 pulls a day, more by day than by night; applications by Zipf (exponent 0.9), mostly the newest version,
  else one of the older. Three in ten by a machine that has nothing (CI, a new node), the others by one of 50 nodes,
  which asks for what it has not pulled in the last 7 days.
- waves: patch, minor, patch release of Kubernetes on days 4, 12 and 24: every node pulls the whole set, which has
  shifted altogether, within some hours of its turn in two days. A new node pulls the set of its day, 10 a day.
- scans: on days 8, 15 and 22 one scanner pulls every version of every image there ever was, in eight hours.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from tests.bench.replay.trace import DAY, Request, Trace, blocks

DAYS = 30
PULLS_A_DAY = 1200
_APPLICATIONS, _BASES, _SYSTEM = 400, 15, 25
_NODES, _NEW_NODES_A_DAY = 50, 10
_FORGET = 7 * DAY
_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_RELEASES = (4, 12, 24)
_SCANS = (8, 15, 22)

Layers = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Version:
    """One image as of a day: manifest, config and layers, each a name and a size."""

    born: float
    objects: Layers


@dataclass(frozen=True, slots=True)
class Pull:
    """Somebody pulls an image; `node` None has nothing yet."""

    time: float
    image: Version
    node: int | None
    seconds: float = 20.0


class World:
    """What exists: versions of all images, oldest first."""

    def __init__(self, seed: int, days: int) -> None:
        self.chance = random.Random(seed)
        self.days = days
        self._made = 0
        bases = [list(self._base_history()) for _ in range(_BASES)]
        which = zipf(_BASES, 1.0, self.chance)
        self.applications = [list(self._history(bases[which()], heavy=at % 50 == 7)) for at in range(_APPLICATIONS)]
        small = (self._layer(2 * _MIB, 0.1),)
        self.system = [list(self._system(small)) for _ in range(_SYSTEM)]

    def _layer(self, median: float, sigma: float) -> tuple[str, int]:
        self._made += 1
        size = self.chance.lognormvariate(math.log(median), sigma)
        return f"{self._made:x}", blocks(int(min(max(size, 200), 4 * _GIB)))

    def _image(self, born: float, layers: Layers) -> Version:
        config = self._layer(6 * _KIB, 0.5)
        name, size = self._layer(2 * _KIB, 0.3)
        return Version(born, ((f"m{name}", size), config, *layers))

    def _base_history(self) -> Iterator[tuple[float, Layers]]:
        count, born = self.chance.randint(1, 3), -60 * DAY
        while born < self.days * DAY:
            yield born, tuple(self._layer(30 * _MIB, 0.5) for _ in range(count))
            born += self.chance.expovariate(1 / (45 * DAY))

    def _history(self, bases: Sequence[tuple[float, Layers]], heavy: bool) -> Iterator[Version]:
        own = [self._layer(3 * _MIB, 1.8) for _ in range(self.chance.randint(1, 5))]
        if heavy:
            own[0] = self._layer(2 * _GIB, 0.4)
        born = -30 * DAY
        while born < self.days * DAY:
            base = [layers for since, layers in bases if since <= born][-1]
            yield self._image(born, (*base, *own))
            born += self.chance.expovariate(1 / (10 * DAY))
            own[len(own) // 2 :] = [self._layer(3 * _MIB, 1.5) for _ in own[len(own) // 2 :]]

    def _system(self, base: Layers) -> Iterator[Version]:
        for born in (-20 * DAY, *(day * DAY for day in _RELEASES)):
            yield self._image(born, (*base, *(self._layer(12 * _MIB, 0.8) for _ in range(2))))


def zipf(count: int, exponent: float, chance: random.Random) -> Callable[[], int]:
    """Draws places below `count`, the first one most often."""
    sums = list(accumulate((place + 1) ** -exponent for place in range(count)))
    places = range(count)
    return lambda: chance.choices(places, cum_weights=sums)[0]


def newest(history: Sequence[Version], now: float, back: int = 0) -> Version:
    """The version of that time, or the `back`-th before it."""
    known = [version for version in history if version.born <= now]
    return known[-1 - min(back, len(known) - 1)]


def _everyday(world: World, pulls_a_day: int) -> Iterator[Pull]:
    chance, application = world.chance, zipf(_APPLICATIONS, 0.9, world.chance)
    for _ in range(world.days * pulls_a_day):
        hour = chance.triangular(0, 24, 14) if chance.random() < 0.7 else chance.uniform(0, 24)
        now = chance.randrange(world.days) * DAY + hour * 3600
        back = 0 if chance.random() < 0.85 else int(chance.expovariate(0.7)) + 1
        node = None if chance.random() < 0.3 else chance.randrange(_NODES)
        yield Pull(now, newest(world.applications[application()], now, back), node)


def _waves(world: World, _pulls_a_day: int) -> Iterator[Pull]:
    chance = world.chance
    for day in (day for day in _RELEASES if day < world.days):
        for node in range(_NODES):
            turn = day * DAY + chance.uniform(0, 2 * DAY)
            yield from (
                Pull(turn + chance.uniform(0, 4 * 3600), newest(history, day * DAY), node) for history in world.system
            )
    for _ in range(world.days * _NEW_NODES_A_DAY):
        now = chance.uniform(0, world.days * DAY)
        yield from (Pull(now, newest(history, now), None) for history in world.system)


def _scans(world: World, _pulls_a_day: int) -> Iterator[Pull]:
    for day in (day for day in _SCANS if day < world.days):
        begin = day * DAY
        known = [version for history in world.applications + world.system for version in history]
        known = [version for version in known if version.born <= begin]
        yield from (
            Pull(begin + place * DAY / 3 / len(known), version, -1 - day) for place, version in enumerate(known)
        )


LOADS: Mapping[str, Callable[[World, int], Iterator[Pull]]] = {"zipf": _everyday, "waves": _waves, "scans": _scans}


def _requests(pulls: Sequence[Pull], chance: random.Random) -> Iterator[Request]:
    """What each puller lacks, its manifest first; one that knows the manifest and all layers asks nothing."""
    stores: dict[int, dict[str, float]] = {}
    for pull in pulls:
        store = {} if pull.node is None else stores.setdefault(pull.node, {})
        now = pull.time
        for key, size in pull.image.objects:
            if pull.time - store.get(key, float("-inf")) > _FORGET:
                yield Request(now, key, size, key[0] == "m")
                now += chance.uniform(0, pull.seconds / len(pull.image.objects))
            store[key] = pull.time


def generate(
    seed: int = 1, days: int = DAYS, pulls_a_day: int = PULLS_A_DAY, loads: Sequence[str] = tuple(LOADS)
) -> Trace:
    """A trace of these loads; the same arguments give the same one."""
    world = World(seed, days)
    pulls = [pull for load in loads for pull in LOADS[load](world, pulls_a_day)]
    pulls.sort(key=lambda pull: pull.time)
    requests = sorted(_requests(pulls, world.chance), key=lambda each: each.time)
    return Trace(f"synthetic ({', '.join(loads)}; seed {seed})", requests)
