"""HTTP routes, one group a file. They translate; they decide nothing."""
