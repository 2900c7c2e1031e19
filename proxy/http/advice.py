"""What to do about an answer that is not the caller's fault: the `detail` of its body, beside the sentence that is in
the reason phrase too. Whoever reads a body has curl in hand, so it may be longer and name a command and a setting.
"""

from collections.abc import Mapping

from proxy.errors import Denied, NoSpace, RegistryError, Unavailable

_DOCTOR = "run `tidegate doctor` where tidegate runs: it walks the way out and says what to change"
_BY_LABEL: Mapping[str, str] = {
    "status": "the registry itself is in trouble: try again later; `tidegate status` shows its state",
    "throttled": "it asks for fewer requests: try again later, or give tidegate an account for it",
    "circuit": "it failed again and again and is left alone for a moment: `tidegate status` shows it; " + _DOCTOR,
    "refused": "a setting forbids it: `tidegate egress` lists hosts and rules, `tidegate config` says where they stand",
    "body": "what arrived was not what was due: try again; if that does not help, " + _DOCTOR,
}


def detail(problem: RegistryError, upstream: str) -> str:
    """The upstream it is about, and what to do; empty where the sentence alone says it."""
    about = problem.by or upstream
    match problem:
        case NoSpace():
            return "remove images and run `tidegate gc`, make room on tidegate's disk, or raise local.max_size"
        case Unavailable() if about:
            return f"upstream {about}: {_BY_LABEL.get(problem.label, _DOCTOR)}"
        case Denied() if problem.by:
            return f"upstream {about}: its answer; check that tidegate's account for it may read this"
    return ""
