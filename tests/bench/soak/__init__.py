"""The soak: pulls, pushes, kills, restarts and upstream faults all at once, and every byte a client gets is compared.

`world.py` knows what is right, `wild.py` is an upstream that misbehaves at random, `pulls.py` and `pushes.py` are the
clients, `churn.py` kills and restarts, `after.py` looks at what is left, `run.py` runs it all. Choices come from one
seed; what they meet depends on the machine.
"""
