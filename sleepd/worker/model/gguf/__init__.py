"""GGUF, the format of llama.cpp: read as a base, written as an adapter or as a whole model."""
