"""The clauses of a data filter's contract, by what they are about."""
