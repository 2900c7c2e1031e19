"""Which answers an operator should hear of, and how what was asked for is named there. No header and no query is in it.

A 404 is everyday: clients look whether something exists. So is a 401 to who sent no credentials, which is how a login
begins, and what a client alone has to correct (400, 416). Everything else above 399 is a rule somebody may not know of
(401 with credentials, 403, 405, 413) or something that is broken (500 and above), and so is a body that was cut by us;
a client that left is not.
"""

from proxy.http.exchange import Exchange

_RULES = frozenset({403, 405, 413})
_LONG = 200


def is_one(exchange: Exchange) -> bool:
    """Whether this exchange ended in a problem."""
    if not exchange.error:
        return False
    if exchange.status < 400:
        return exchange.result == "error"
    refused = exchange.status == 401 and "Authorization" in exchange.request.headers
    return refused or exchange.status in _RULES or exchange.status >= 500


def image(exchange: Exchange) -> str:
    """What was asked for: a tag or digest as people write it; of a blob its repository, because the layers of an image
    fail together. The path where nothing was understood."""
    if not exchange.repo:
        return exchange.request.path[:_LONG]
    name = f"{exchange.upstream}/{exchange.repo}"
    match exchange.kind:
        case "tag" | "push" if exchange.reference and ":" not in exchange.reference:
            return f"{name}:{exchange.reference}"
        case "manifest":
            return f"{name}@{exchange.reference}"
    return name
