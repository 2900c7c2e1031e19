"""The programs people run, started by the tests on free ports of 127.0.0.1 in a temporary folder, and ended by them."""
