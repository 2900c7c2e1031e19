"""CONNECT: the way through a forward proxy, and what its refusals ask for."""

from yarl import URL

from proxy.doctor.answer import Head, read_head
from proxy.doctor.dial import Line
from proxy.doctor.limits import Budget
from proxy.doctor.report import Problem, plain
from proxy.upstream.auth import basic_account


def credentials(proxy: URL) -> str:
    """The Proxy-Authorization for the account in a proxy's URL, "" when there is none."""
    if proxy.user is None:
        return ""
    return basic_account(proxy.user, proxy.password or "")


async def connect(line: Line, proxy: URL, target: str, budget: Budget, seconds: float) -> Head:
    """Ask for a tunnel to `target` (host:port). Raises Problem."""
    sent = credentials(proxy)
    asked = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", *([f"Proxy-Authorization: {sent}"] if sent else [])]
    line.writer.write("\r\n".join([*asked, "", ""]).encode())
    head = await read_head(line, budget, "proxy", f"proxy {proxy.raw_host}", seconds)
    if head.status != 200:
        raise refused(head, proxy, target)
    return head


def refused(head: Head, proxy: URL, target: str) -> Problem:
    """What a proxy's answer other than 200 means, and asks for."""
    name = f"{proxy.scheme}://{proxy.raw_host}:{proxy.port}"
    said = f"{name} answered {head.status} for {target}"
    match head.status:
        case 407:
            return _unpaid(head, proxy, name)
        case 403:
            seen, fix = "Forbidden", f"ask the proxy's team to allow {target} for this machine's address"
        case 502 | 503 | 504:
            said += ": it cannot reach it either"
            seen, fix = "Bad Gateway", f"ask the proxy's team whether {target} is open in their firewall and DNS"
        case _:
            seen, fix = plain(head.reason), f"is {name} a forward proxy? see [egress] proxy"
    return Problem("proxy", said, nodes_see=seen, fix=fix)


def _unpaid(head: Head, proxy: URL, name: str) -> Problem:
    values = head.headers.getall("Proxy-Authenticate", [])
    schemes = ", ".join(sorted({plain(text.split(" ")[0]) for text in values if text}))
    said, seen = f"{name} answered 407, offering {schemes or 'nothing'}", "Proxy Authentication Required"
    if schemes and "basic" not in schemes.lower():
        said += "; this speaks Basic"
        fix = "put a helper that speaks it (cntlm, px) in front, and point [egress] proxy at the helper"
    elif proxy.user is not None:
        fix = f"the proxy does not take the account {plain(proxy.user)}: correct it in [egress] proxy"
    else:
        fix = "give it an account: set [egress] proxy_username and proxy_password_file"
    return Problem("proxy", said, nodes_see=seen, fix=fix)
