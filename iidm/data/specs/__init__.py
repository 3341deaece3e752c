"""What is to be known of a data set to read it: known ones by name, and those that a user describes."""
