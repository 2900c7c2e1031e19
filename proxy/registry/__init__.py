"""What a registry answers: the pull-through one, the several behind unqualified names, and which of them is meant."""
