"""What is common to the tests of faults."""

import pytest

pytest.register_assert_rewrite("tests.faults.author", "tests.faults.world")
