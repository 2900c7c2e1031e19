"""How this program logs: messages to standard error, as text or one JSON object a line."""

import json
import logging
import time

from proxy.config import Log


class _JsonLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        row = {"time": stamp, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            row["trace"] = self.formatException(record.exc_info)
        return json.dumps(row)


def set_up_log(log: Log) -> None:
    """Messages to standard error; access lines go to standard output by themselves (http/access.py)."""
    handler = logging.StreamHandler()
    text = logging.Formatter("%(asctime)sZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    text.converter = time.gmtime
    handler.setFormatter(_JsonLines() if log.format == "json" else text)
    logging.basicConfig(handlers=[handler], level=log.level.upper(), force=True)
