"""What keeps the data folder well, and what it has to remember of its workers."""
