"""Every structure that goes over a socket or a pipe, or into a document. Opens nothing and decides nothing."""
