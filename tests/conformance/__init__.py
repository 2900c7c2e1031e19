"""The OCI distribution specification as tests: every end-N with its success, its refusals, headers and edge cases.

Written against the specification (1.1 and its main branch) and not against a program: each test's docstring names the
end-N it belongs to and what is asked for there. The same tests run against every target in targets.py; a control
differs only where deviations.py says so, and must differ there. `python -m tests.conformance` prints the result as a
table. Optional parts (MAY, SHOULD) are asked for like the rest: a registry that leaves one out is listed.
"""
