"""The clock of this machine against the one of whoever answered first."""

from email.utils import parsedate_to_datetime

from proxy.doctor.answer import Head
from proxy.doctor.report import Problem


def check(head: Head, most: float) -> str:
    """How far off we are, at most `most` seconds. Raises Problem; ValueError when the Date cannot be read."""
    age = head.headers.get("Age", "")
    theirs = parsedate_to_datetime(head.headers["Date"]).timestamp() + (
        int(age) if age.isascii() and age.isdigit() else 0
    )
    off = head.at - theirs
    if abs(off) <= most:
        return f"within {max(abs(off), 1):.0f} s of the other side's"
    raise Problem(
        "clock",
        f"this machine's clock is {_long(abs(off))} {'ahead' if off > 0 else 'behind'}",
        nodes_see="x509: certificate has expired or is not yet valid",
        fix="set the clock and keep it right: timedatectl set-ntp true, or chrony with a server inside",
    )


def _long(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
