"""The runner behind ``planish run``: a baseline and the composed model, trained alike, compared in a report."""
