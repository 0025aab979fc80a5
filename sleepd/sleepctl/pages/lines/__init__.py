"""Lines that several pages show: the evidence, a cycle in a sentence, where it came from, what is served."""
