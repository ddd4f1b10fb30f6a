"""The loop that trains, and the session around it."""
