"""Vision-language models: load, ask, generate, read the answer; and a tiny one that trains on a CPU."""
