"""The way out, walked step by step as a pull would take it: what is well, what is wrong, what to change.

One check a file; `examine` puts them in order. Connections are opened by hand, stage by stage, because a library says
only that a connection failed and this has to say where. Nothing is stored, counted or written into the ledger here.
"""

from proxy.doctor.examine import examine
from proxy.doctor.limits import Limits

__all__ = ["Limits", "examine"]
