"""Files of data as a config reads them, and their faults."""

import pyarrow
import pyarrow.parquet
import pytest

from runner.plan.data.files import FileFault, describe, open_array, read


def load(folder, text, columns=None, limit=None):
    """Read an array, holding the header against the values."""
    array = open_array(text, folder, (), columns)
    shape, dtype = describe(array, limit)
    tensor = read(array, limit)
    assert (tuple(tensor.shape), tensor.dtype) == (shape, dtype)
    assert tensor.is_contiguous()
    return tensor


def fault(folder, text, columns=None, limit=None):
    """The fault of an array that may be found at any stage."""
    with pytest.raises(FileFault, match=r".") as caught:
        load(folder, text, columns, limit)
    assert caught.value.hint
    return caught.value


def write_parquet(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
