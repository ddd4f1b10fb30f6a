"""Arrays and numbers as pictures."""
