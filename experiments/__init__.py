"""One module per table or figure; each runs what is missing and writes results/."""
