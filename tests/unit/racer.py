"""One of several processes that want the same digests at the same time: `python -m tests.unit.racer DATA COUNT SEED`.

Prints one line for each digest it has committed itself. Every process reads every digest to its end.
"""

import asyncio
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor

from proxy.care import plan
from proxy.oci.digest import Digest
from proxy.ports import OpenBlob, Seen
from proxy.store.catalogue import Catalogue
from proxy.store.ingest import Following, Leading, Store


def content(number):
    """The blob of that number, of a few bytes up to several writes; no two are alike."""
    return b"%d" % number + random.Random(number).randbytes((0, 1, 300, 70_000)[number % 4])


def say(word):
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def lead(lead, number, rng):
    body = content(number)
    lead.announce(len(body))
    at = lead.received
    while at < len(body):
        step = rng.randint(1, 40_000)
        await lead.write(body[at : at + step])
        at += step
        await asyncio.sleep(0)
    assert await lead.seal(), "what was written is not what the digest says"
    await lead.publish()
    await lead.close(discard=False)
    say(number)


async def want(store, number, rng):
    digest = Digest.of(content(number))
    while True:
        claimed = store.claim(digest, lambda: None)
        if isinstance(claimed, Following):
            claimed = await follow(claimed, rng)
        match claimed:
            case OpenBlob():
                assert claimed.size == len(content(number))
                assert os.pread(claimed.fd, claimed.size + 1, 0) == content(number)
                claimed.close()
                return
            case Leading():
                await lead(claimed, number, rng)


async def follow(following, rng):
    """Poll for a while, as followers do; then leave and claim anew, as those who arrive late do: each new claim may
    meet the rename between its two looks."""
    try:
        for _ in range(rng.choice([1, 1, 1, 50])):
            seen = following.look(lambda: None)
            if not isinstance(seen, Seen):
                return seen
            await asyncio.sleep(0)
        return None
    finally:
        following.close()


async def main(data, count, seed):
    rng = random.Random(seed)
    catalogue = Catalogue(os.path.join(data, "catalogue"), plan.rank)
    with ThreadPoolExecutor(2) as pool:
        store = Store(data, pool, pool, catalogue)
        say("ready")
        sys.stdin.readline()
        for number in range(count):
            await want(store, number, rng)
    catalogue.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
