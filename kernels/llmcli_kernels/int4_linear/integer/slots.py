"""The words that Python and the compiled code share: the state of one product, int64 each.

Python writes all of them before the product; the compiled code counts up the first two, which have a cache line each.
"""

NEXT_QUANTISE, NEXT_PRODUCT = 0, 8  # the pieces of work that are taken, zero at first
# Addresses, then sizes; `program` explains them.
FIRST = 16
(X, RECORDS, BIAS, Y, Q, SCALES, SUMS, ROWS, GROUPS, PANELS, RANGES, CHUNK, PER) = range(FIRST, FIRST + 13)
NUM_QUANTISE, NUM_PRODUCT = FIRST + 13, FIRST + 14
NUM_WORDS = 32

MOST_CHUNK = 192  # activation rows of one pass over the weights: their sums lie on the stack (48 KiB)
