"""Reinforcement of what a vision-language model (:mod:`rali_zoo.vlm`) writes.

``rewards`` grades completions, ``objective`` turns grades into a loss, ``grpo`` samples and puts the two together,
``monitor`` watches for collapse; none of them knows Lightning. ``trl`` hands data and rewards to TRL's trainer.
"""
