"""What each page shows: answers of the daemon in, values for a template out. No request and no HTML is known here."""
