"""A Prometheus of our own, with the rules we ship, that scrapes every second and is asked like Grafana asks it."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.real.processes import fetch, free_port, running
from tests.real.tidegate import ROOT

RULES = ROOT / "deploy/prometheus"


class Prometheus:
    """One that runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, page: str, **query: Any) -> Any:
        """The data of a page of the API; what it refuses fails the test with its words."""
        status, body = fetch(f"{self.url}/api/v1/{page}?{urlencode(query)}")
        answer = json.loads(body)
        assert status == 200, f"{query}: {answer.get('error')}"
        return answer["data"]

    def now(self, expression: str) -> list[float]:
        """An instant query's values that are numbers."""
        rows = self.ask("query", query=expression)["result"]
        return [value for row in rows if math.isfinite(value := float(row["value"][1]))]

    def over(self, expression: str, seconds: float) -> list[tuple[Mapping[str, str], list[float]]]:
        """The labels and the values of each series of a range query, those that are numbers."""
        end = time.time()
        rows = self.ask("query_range", query=expression, start=end - seconds, end=end, step=1)["result"]
        numbers = [(row["metric"], [float(value) for _, value in row["values"]]) for row in rows]
        return [(labels, [value for value in values if math.isfinite(value)]) for labels, values in numbers]

    def values(self, label: str, matching: str) -> list[str]:
        """What a variable offers."""
        found: list[str] = self.ask(f"label/{label}/values", **{"match[]": matching})
        return found

    def scraped(self, instance: str) -> float:
        """When this one was last scraped with success, 0 when never."""
        return max(self.now(f'timestamp(tidegate_build_info{{instance="{instance}"}})'), default=0.0)


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """Scrapes `targets`, host and port by the name their series get as `instance`. Raises NotStarted."""
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{free_port()}"
    static = [{"targets": [target], "labels": {"instance": name}} for name, target in targets.items()]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES / "rules.yml"), str(RULES / "alerts.yml")],
        "scrape_configs": [{"job_name": "tidegate", "static_configs": static}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML too
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
               f"--web.listen-address={host}", "--log.level=warn"]  # fmt: skip
    with running(command, folder, "prometheus", f"http://{host}/-/ready"):
        yield Prometheus(f"http://{host}")
