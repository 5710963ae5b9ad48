"""What a reasoner's texts carry and what RALI's parts are worth, measured: one module an analysis.

Each takes images of data sets, gives numbers with 95 % intervals, a plot, and a results file; nothing here
trains but :mod:`rali_zoo.analysis.ablations`. The commands are ``rali-zoo analyze …``.
"""
