"""Where the control, docker-registry 2.8 of Debian, is known to differ: the test and why, one sentence each.

Such a test must fail there; one that passes is a mistake in this table. Parts of the specification that are optional
are listed like violations, and say so.
"""

DEVIATIONS: dict[str, str] = {}
