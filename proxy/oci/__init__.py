"""Values of the OCI specifications: parsed once, at the edge, into something that cannot be wrong. No I/O."""
