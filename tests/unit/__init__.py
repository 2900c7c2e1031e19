"""Tests of single modules: no network, no server; where processes matter, small ones that end with the test."""
