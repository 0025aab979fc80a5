"""What ``./install.sh try`` plays: a sample agent, a real model, one cycle, the replies before and after.

Covered: the daemon as it runs anywhere, on a fresh buffer in a directory of its own. Not covered: systemd, a GPU, an
agent that loads what was learned (with ``--serve``, llama.cpp's server does). Nothing here is imported by the rest.
"""
