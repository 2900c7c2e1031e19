"""How the last reading of the configuration went while the service ran: the supervisor notes it, every worker tells it.

A file and not shared memory, because it holds a sentence; it does not outlive a start.
"""

import os


def note(data: str, mistake: str) -> None:
    """`mistake`: the line that says why the settings stayed as they were, "" when they did not. Raises OSError."""
    path = _path(data)
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(mistake)
    os.rename(f"{path}.new", path)


def mistake(data: str) -> str:
    """Why the last reload was refused, "" when it was not, or there was none."""
    try:
        with open(_path(data), encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _path(data: str) -> str:
    return os.path.join(data, "run", "reload")
