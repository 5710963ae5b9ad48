"""Learning to describe and to score by reinforcement: what a vision-language model writes, and how it is
judged.

``parsing`` reads an answer, ``prompts`` asks the question, ``rewards`` grades, ``objective`` turns grades
into a loss and ``monitor`` watches for collapse. They are functions of texts and tensors and know
no model. ``vlm`` loads one, ``rollout`` lets it write, ``tiny_vlm`` builds a small one from scratch.
"""
