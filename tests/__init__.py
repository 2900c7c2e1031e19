"""The suite: fakes/ misbehave on purpose, real/ starts the programs people run, test_*.py hold the tests."""
