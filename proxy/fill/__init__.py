"""One download per digest, read by many while it arrives."""
