"""The benchmark: suites of scorers and data sets, their statistics and costs, and the leaderboard."""
