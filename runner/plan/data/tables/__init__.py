"""Tables: text and Parquet files, and how their columns become numbers.

In: files, a dialect, and names of columns. Out: numbers or words by column, with the row of every fault.
Text is read in blocks of whole rows; pyarrow converts them, and Python those that pyarrow cannot.
"""
