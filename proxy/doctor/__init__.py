"""What is wrong with the way out, step by step: one check per file."""
