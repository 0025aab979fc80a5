"""The page: what was learned, on what evidence, and what to do next, in a browser.

It is a client of the daemon like ``sleepctl``: it asks over the control socket and keeps nothing. The daemon imports
nothing of it.
"""
