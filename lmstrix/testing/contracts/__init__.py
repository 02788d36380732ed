"""One pytest suite for each plug-in family: subclass it, give it your plug-in, run it.

For readable failures add ``pytest.register_assert_rewrite("lmstrix.testing.contracts")`` to
your ``conftest.py``.
"""
