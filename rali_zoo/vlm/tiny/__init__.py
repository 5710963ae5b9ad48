"""A vision-language model of a few million parameters, trained from nothing on a CPU."""
