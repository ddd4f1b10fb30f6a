"""All images of a data set, decoded once."""
