"""What speaks HTTP: requests to calls, answers and errors to bytes, and who is told about it."""
