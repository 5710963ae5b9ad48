"""Vision-language models: load, ask, generate, parse the answer; and a tiny one that trains on a CPU.

``model`` loads one by reference and makes input of images and questions; ``prompts`` are the questions, ``questions``
asks them of a batch, ``generation`` lets a model write and says how likely a text is, ``parsing`` reads what was
written, ``expectation`` makes a finer score of it. ``tuning`` and ``sharding`` prepare a model for training,
``generation_vllm`` samples by vLLM, and ``tiny`` is a model of ours built from scratch.
"""
