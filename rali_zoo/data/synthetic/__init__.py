"""The embedded ``synthetic`` data sets: pristine sources, distortions, simulated raters, a cached build."""
