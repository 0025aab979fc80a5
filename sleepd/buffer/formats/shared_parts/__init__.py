"""What more than one format reads in the same way; none of these is a format."""
