"""What each command does; a package for each kind of thing that commands act on."""
