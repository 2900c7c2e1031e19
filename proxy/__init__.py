"""tidegate: a caching pull-through OCI registry for restricted networks.

The rooms and their layers (a module imports its own room and lower layers only; tests/test_layers.py holds the table):

0  errors, oci/                       values and errors of the OCI specifications
1  config, policy, metrics, ports     settings, pure decisions, numbers, the Protocols between rooms
2  store/, upstream/                  bytes and names on this machine; registries elsewhere
3  fill/                              one download per digest, read by many while it arrives
4  registry/, care/                   what a registry answers; what keeps the store well
5  http/, doctor/, clients/           what people and programs talk to
6  compose, worker, cli, __main__     the only place that names every concrete class
"""

__version__ = "0.1.0"
