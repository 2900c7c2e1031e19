"""What a policy of eviction is worth: request traces replayed against it, `python -m tests.bench.replay --help`.

Nothing here opens a socket or a store. The marks, the order and the choice of victims are those of proxy/care/plan.py,
so that what is measured is what runs; only the other policies' ranks and the bounds are the bench's own.
"""
