"""Level two: what the twins of many users make of a slice. Reservations, windows and the game of groups."""
